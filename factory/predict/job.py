"""`factory predict`: score a file of any size; the same command resumes interrupted work."""

from __future__ import annotations

import itertools
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from factory.data.formats import DataFile
from factory.data.messages import count as counted
from factory.data.reading import BadRow
from factory.errors import DataError, PredictError
from factory.predict.partial import partial_output
from factory.predict.rows import STANDARD_STREAM, TextRow, Wanted, open_input, text_rows
from factory.predict.tables import AnswerColumns, OutputFile, output_file, table_writer
from factory.runtime.progress import bar, say
from factory.version import VERSION
from serving.bundle import MANIFEST_NAME, Manifest, sha256_file
from serving.errors import InferenceError, InputError
from serving.predictor import Predictor

# Rows scored together, sorted by length. The last digits of scores may depend on the other texts of
# a batch, so resumed work must use the same chunks.
CHUNK_ROWS = 512
OnError = Literal["stop", "skip"]
LISTED = 10  # bad rows listed one by one; of the others, only the number


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """Options of `predict_file`.

    Args:
        text: the text column; None: as in the bundle's recipe, or "text".
        text_pair: the second one, for pairs; None: as in the bundle's recipe, or "text_pair".
        on_error: whether rows that cannot be scored stop the command or are skipped.
        restart: discard partial output.
    """

    text: str | None
    text_pair: str | None
    prefix: str
    all_scores: bool
    on_error: OnError
    threads: int
    restart: bool


def predict_file(bundle: Path, source: Path, output: Path, options: PredictOptions) -> None:
    """Score every row of a file and write the rows, in order, with their predictions.

    Memory does not grow with the file. Between files, all rows are checked before the first is
    scored, and interrupted work is resumed; with standard streams, neither is possible.

    Raises:
        PredictError: the output exists, a column is missing or exists already, the partial output
            is for another input, or a value does not fit the output's format.
        DataError: rows that cannot be scored, with their numbers.
        BundleError: the bundle cannot be used.
    """
    wanted_output = output_file(output)
    if not wanted_output.standard and (output.exists() or output.is_symlink()):
        raise PredictError(f"{output}: exists already; give another --output or remove it")
    predictor = Predictor.open(bundle)
    columns = AnswerColumns(predictor.manifest, options.prefix, options.all_scores)
    texts = _text_columns(predictor.manifest, options.text, options.text_pair)
    given = open_input(source, texts, predictor.manifest.recipe.get("data", {}).get("quoting"))
    wanted = Wanted(texts, new=columns.names, same_fields=wanted_output.format != "jsonl")
    if given.format.encoding == "cp1252":
        say(f"{given.name}: is not UTF-8; reading it as Windows-1252")
    job = _Job(predictor, given, wanted_output, wanted, columns, options)
    if source == STANDARD_STREAM or wanted_output.standard:
        job.stream()
    else:
        job.run(bundle)


def _text_columns(manifest: Manifest, text: str | None, text_pair: str | None) -> tuple[str, ...]:
    """The text columns: as given, else those of the bundle's recipe.

    Raises:
        PredictError: a second column for a bundle of single texts.
    """
    recorded = manifest.recipe.get("data", {}).get("text", [])
    trained = [recorded] if isinstance(recorded, str) else list(recorded)
    if not manifest.text_pair:
        if text_pair is not None:
            raise PredictError(f"{manifest.name} takes single texts; leave --text-pair out")
        return (text or (trained or ["text"])[0],)
    first, second = trained if len(trained) == 2 else ("text", "text_pair")
    return text or first, text_pair or second


@dataclass(frozen=True, slots=True)
class _Job:
    predictor: Predictor
    source: DataFile
    output: OutputFile
    wanted: Wanted
    columns: AnswerColumns
    options: PredictOptions

    def run(self, bundle: Path) -> None:
        """Check all rows, score those not scored yet, and write the output."""
        count = self._check()
        about = _about(bundle, self.source, self.wanted)
        path, labels = self.output.path, len(self.predictor.labels)
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial_output(path, about, labels, restart=self.options.restart) as work:
            done = min(work.rows(CHUNK_ROWS), count)
            texts = (row.texts for row in itertools.islice(self._good_rows(), done, None))
            with bar("scoring", count, "row", done) as progress:
                for logits in self._scored(_chunks(texts)):
                    work.append(logits)
                    progress.advance(len(logits))
            whole = work.directory / "output"
            with bar("writing", count, "row") as progress:
                rows = zip(_chunks(self._good_rows()), work.chunks(CHUNK_ROWS), strict=True)
                self._write(whole, rows, progress.advance)
            _settle(whole)
            whole.replace(path)
        say(f"{path}: {count} rows")

    def stream(self) -> None:
        """Read, score and write in one pass, as standard streams require."""
        to_file = not self.output.standard
        path = self.output.path
        whole = path.with_name(f".{path.name}.partial-{os.getpid()}") if to_file else path
        kept, given = itertools.tee(_chunks(self._good_rows()))
        texts = ([row.texts for row in chunk] for chunk in given)
        with bar("scoring", None, "row") as progress:
            try:
                # tee buffers a bounded number of chunks
                self._write(whole, zip(kept, self._scored(texts), strict=True), progress.advance)
                if to_file:
                    _settle(whole)
                    whole.replace(path)
            finally:
                if to_file:
                    whole.unlink(missing_ok=True)

    def _scored(self, chunks: Iterable[Any]) -> Iterator[NDArray[np.float32]]:
        return score_chunks(self.predictor, chunks, self.options.threads)

    def _good_rows(self) -> Iterator[TextRow]:
        """The rows that can be scored.

        Raises:
            DataError: a row cannot be scored, and rows must not be skipped.
        """
        for row in text_rows(self.source, self.wanted):
            if isinstance(row, TextRow):
                yield row
            elif self.options.on_error == "stop":
                raise self._bad_rows([row], 1)

    def _check(self) -> int:
        """Read all rows and count those that can be scored.

        Raises:
            DataError: some cannot be scored, and rows must not be skipped.
            PredictError: none can be scored.
        """
        count, bad, first = 0, 0, list[BadRow]()
        for row in text_rows(self.source, self.wanted):
            if isinstance(row, TextRow):
                count += 1
                continue
            bad += 1
            if bad <= LISTED:
                first.append(row)
        if bad and self.options.on_error == "stop":
            raise self._bad_rows(first, bad)
        for row in first:
            self._say_skipped(row)
        if bad > LISTED:
            say(f"{self.source.name}: {bad} rows are skipped")
        if not count:
            raise PredictError(f"{self.source.name}: no row can be scored")
        return count

    def _bad_rows(self, rows: list[BadRow], count: int) -> DataError:
        more = [f"and {count - len(rows)} more"] if count > len(rows) else []
        return DataError(
            f"{self.source.name}: {counted(count, 'row')} cannot be scored; correct the file, or "
            "skip such rows with --on-error skip",
            [f"{self.source.unit} {row.number}: {row.reason}" for row in rows] + more,
        )

    def _say_skipped(self, row: BadRow) -> None:
        say(f"{self.source.name}, {self.source.unit} {row.number}: {row.reason}; skipped")

    def _write(
        self,
        path: Path,
        chunks: Iterable[tuple[list[TextRow], NDArray[np.float32]]],
        advance: Callable[[int], None],
    ) -> None:
        with table_writer(path, self.output, self.source, self.columns) as writer:
            for rows, logits in chunks:
                scored = np.isfinite(logits.sum(axis=1))
                for place in np.flatnonzero(~scored).tolist():
                    failed = BadRow(rows[place].row.number, "the model fails on it")
                    if self.options.on_error == "stop":
                        raise self._bad_rows([failed], 1)
                    self._say_skipped(failed)
                kept = [row.row for row, good in zip(rows, scored.tolist(), strict=True) if good]
                writer.write(kept, self.columns.values(logits[scored]))
                advance(len(rows))


def _chunks(rows: Iterable[Any]) -> Iterator[list[Any]]:
    """Lists of CHUNK_ROWS, the last one shorter."""
    rows = iter(rows)
    while chunk := list(itertools.islice(rows, CHUNK_ROWS)):
        yield chunk


def _about(bundle: Path, source: DataFile, wanted: Wanted) -> dict[str, object]:
    """The values that decide the logits, by their names in messages."""
    import onnxruntime

    return {
        "input": sha256_file(source.path),
        "bundle": sha256_file(bundle / MANIFEST_NAME),
        "text column": list(wanted.texts),
        "new columns": None if source.columns else list(wanted.new),
        "format": asdict(source.format),
        "tinybert-factory": VERSION,
        "onnxruntime": onnxruntime.__version__,
    }


def _settle(path: Path) -> None:
    """Flush a file to disk before it is renamed."""
    if sys.platform != "win32":
        with path.open("rb") as file:
            os.fsync(file.fileno())


def score_chunks(
    predictor: Predictor, chunks: Iterable[Sequence[tuple[str, ...]]], threads: int
) -> Iterator[NDArray[np.float32]]:
    """The logits of each chunk, in order; NaN for rows on which the model fails.

    Threads share one model, each running on one core, and are as fast as processes (measured: 2 %
    more CPU time than one thread, processes 18 %).
    """
    # one tokenizer thread per inference thread
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    running: deque[Future[NDArray[np.float32]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="score") as pool:
        try:
            for chunk in chunks:
                running.append(pool.submit(_score, predictor, chunk))
                if len(running) > 2 * threads:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _score(predictor: Predictor, texts: Sequence[tuple[str, ...]]) -> NDArray[np.float32]:
    """One chunk: (rows, labels)."""
    try:
        if predictor.text_pair:
            return predictor.logits([(text[0], text[1]) for text in texts])
        return predictor.logits([text[0] for text in texts])
    except (InferenceError, InputError):
        if len(texts) == 1:
            return np.full((1, len(predictor.labels)), np.nan, dtype=np.float32)
        return np.concatenate([_score(predictor, [text]) for text in texts])
