"""`factory predict`: score a file of any size; interrupted work is resumed by the same command."""

from __future__ import annotations

import itertools
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from factory.data.formats import DataFile
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
from serving.tokenization import Inputs

# Rows scored together, sorted by length. Answers may differ in their last digits with the texts
# that run beside them, so resumed work must cut where uninterrupted work cuts.
CHUNK_ROWS = 512
OnError = Literal["stop", "skip"]
# Bad rows listed one by one; of more, the number.
LISTED = 10


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """How to read, name and run.

    Args:
        text: the text column; None: as in the bundle's recipe, or "text".
        text_pair: the second one, of a bundle for pairs; None: likewise, or "text_pair".
        on_error: rows that cannot be scored stop the command, or are left out.
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
    """Score every row of a file and write them, in order, with their answers.

    Memory does not grow with the file. Unless a standard stream takes part, all rows are checked
    before the first is scored, and interrupted work is resumed.

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
    texts = text_columns(predictor.manifest, options.text, options.text_pair)
    given = open_input(source, texts, predictor.manifest.recipe.get("data", {}).get("quoting"))
    wanted = Wanted(texts, new=columns.names, same_fields=wanted_output.format != "jsonl")
    if given.format.encoding == "cp1252":
        say(f"{given.name}: is not UTF-8; read as Windows-1252")
    job = _Job(predictor, given, wanted_output, wanted, columns, options)
    if source == STANDARD_STREAM or wanted_output.standard:
        job.stream()
    else:
        job.run(bundle)


def text_columns(manifest: Manifest, text: str | None, text_pair: str | None) -> tuple[str, ...]:
    """The names of the text columns: as given, else as the bundle was trained.

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
        """Check all rows, score what is not scored yet, put the output together."""
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
        """Read, score and write in one pass, as standard streams must be."""
        to_file = not self.output.standard
        path = self.output.path
        whole = path.with_name(f".{path.name}.partial-{os.getpid()}") if to_file else path
        kept, given = itertools.tee(_chunks(self._good_rows()))
        texts = ([row.texts for row in chunk] for chunk in given)
        with bar("scoring", None, "row") as progress:
            try:
                # the two copies of the rows are a bounded number of chunks apart
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
            DataError: one cannot, and none is to be left out.
        """
        for row in text_rows(self.source, self.wanted):
            if isinstance(row, TextRow):
                yield row
            elif self.options.on_error == "stop":
                raise self._refusal([row], 1)

    def _check(self) -> int:
        """The number of rows that can be scored, all of them looked at.

        Raises:
            DataError: some cannot, and none is to be left out.
            PredictError: none can.
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
            raise self._refusal(first, bad)
        for row in first:
            say(f"{self._place(row)} {row.reason}; left out")
        if bad > LISTED:
            say(f"{self.source.name}: {bad} rows are left out")
        if not count:
            raise PredictError(f"{self.source.name}: has no row that can be scored")
        return count

    def _refusal(self, rows: list[BadRow], count: int) -> DataError:
        more = [f"and {count - len(rows)} more"] if count > len(rows) else []
        which = "1 row" if count == 1 else f"{count} rows"
        return DataError(
            f"{self.source.name}: {which} cannot be scored; correct the file, or leave such rows "
            "out with --on-error skip",
            [f"{self.source.unit} {row.number}: {row.reason}" for row in rows] + more,
        )

    def _place(self, row: BadRow) -> str:
        return f"{self.source.name}, {self.source.unit} {row.number}:"

    def _write(
        self,
        path: Path,
        chunks: Iterable[tuple[list[TextRow], NDArray[np.float32]]],
        advance: Callable[[int], None],
    ) -> None:
        with table_writer(path, self.output, self.source, self.columns) as writer:
            for rows, logits in chunks:
                answered = np.isfinite(logits.sum(axis=1))
                for place in np.flatnonzero(~answered).tolist():
                    failed = BadRow(rows[place].row.number, "the model fails on it")
                    if self.options.on_error == "stop":
                        raise self._refusal([failed], 1)
                    say(f"{self._place(failed)} {failed.reason}; left out")
                kept = [row.row for row, good in zip(rows, answered.tolist(), strict=True) if good]
                writer.write(kept, self.columns.values(logits[answered]))
                advance(len(rows))


def _chunks(rows: Iterable[Any]) -> Iterator[list[Any]]:
    """Lists of CHUNK_ROWS, the last one shorter."""
    rows = iter(rows)
    while chunk := list(itertools.islice(rows, CHUNK_ROWS)):
        yield chunk


def _about(bundle: Path, source: DataFile, wanted: Wanted) -> dict[str, object]:
    """What the logits depend on; the names are those of the message about a change."""
    import onnxruntime

    return {
        "input": sha256_file(source.path),
        "bundle": sha256_file(bundle / MANIFEST_NAME),
        "text column": list(wanted.texts),
        "new columns": None if source.columns else list(wanted.new),
        "format": source.format.facts(),
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
    """The logits of each chunk, in order; rows the model fails on are not a number.

    Threads share the predictor, each running on one core: as much work per second as processes,
    which would each hold a model (measured: 2 % more CPU time than one thread, processes 18 %).
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
        return predictor.logits(_inputs(predictor, texts))
    except (InferenceError, InputError):
        if len(texts) == 1:
            return np.full((1, len(predictor.labels)), np.nan, dtype=np.float32)
        return np.concatenate([_score(predictor, [text]) for text in texts])


def _inputs(predictor: Predictor, texts: Sequence[tuple[str, ...]]) -> Inputs:
    if predictor.text_pair:
        return [(text[0], text[1]) for text in texts]
    return [text[0] for text in texts]
