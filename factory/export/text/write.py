"""One ONNX file from strings to labels and scores, for plain onnxruntime in any language.

The tokenizer becomes nodes of standard ONNX and one operator that is built into onnxruntime,
`com.microsoft.Tokenizer`, here used to part strings into characters. No library of custom
operators is needed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from factory.errors import ParityError
from factory.export.session import open_session
from factory.export.text.characters import SURROGATES
from factory.export.text.check import (
    ATOL,
    Inputs,
    different_points,
    different_rows,
    feed_of,
    largest_score_difference,
)
from factory.export.text.graph import TextTables
from factory.export.text.model import TextForm, build_row_model, build_text_model
from factory.export.text.rows import RowFormat
from factory.export.text.strings import difficult_strings
from factory.export.text.tokenizer import TOKENIZER_FILE, read_specials, read_tables
from serving.bundle import read_manifest
from serving.tokenization import TextTokenizer

STRINGS = 10_000
SEED = 20
SCORED_STRINGS = 150
EVERY_POINT = range(0x110000)
WHOLE = 2**20  # a max_length that cuts nothing
TIMED_TOKENS = (16, 128)
TIMED_CALLS = 30


@dataclass(frozen=True, slots=True)
class TextModelFacts:
    """What was written and proved.

    Args:
        exact_scripts: "all" when every code point was compared, else "compared code points".
        code_points: compared one by one, alone and within a word; surrogates are no text.
        strings: difficult ones compared, whole and cut to max_length.
        largest_difference: of a score from those of tokenizer and network run separately.
        added_bytes: the file's size beyond the network's.
        tokenizing_ms: CPU time per text of 16 and of 128 tokens, one thread.
        tokenizers_ms: the same by the `tokenizers` library.
    """

    exact_scripts: str
    code_points: int
    strings: int
    largest_difference: float
    size_bytes: int
    added_bytes: int
    tokenizing_ms: dict[int, float]
    tokenizers_ms: dict[int, float]

    def facts(self) -> dict[str, Any]:
        """The facts as JSON data."""
        return asdict(self)


def write_bundle_text_model(
    bundle: Path, target: Path, model_file: Path | None = None
) -> TextModelFacts:
    """Write the text model of a bundle.

    Args:
        model_file: another ONNX file of the same student than the one the bundle ships.

    Raises:
        BundleError: this is no bundle.
        TextModelError, ParityError: as `write_text_model`.
    """
    manifest = read_manifest(bundle)
    thresholds = manifest.thresholds if isinstance(manifest.thresholds, list) else None
    form = TextForm(
        manifest.task, manifest.labels, manifest.text_pair, manifest.max_length, thresholds
    )
    return write_text_model(model_file or bundle / manifest.model.file, bundle, target, form)


def write_text_model(
    model_file: Path,
    tokenizer_directory: Path,
    target: Path,
    form: TextForm,
    *,
    strings: int = STRINGS,
    code_points: Sequence[int] = EVERY_POINT,
) -> TextModelFacts:
    """Write one file that reads strings, and prove that it answers as tokenizer and network do.

    Inputs: `text` and, of a model for pairs, `text_pair`: strings (batch,). Outputs: `label` and
    `scores` as `add_answers` describes, `token_count` int64 (batch,), `truncated` bool (batch,).

    Args:
        model_file: any ONNX form of the student, opset 14 or later.
        tokenizer_directory: a bundle or a student's folder, for its tokenizer.json.
        target: the file to write; it is removed again where a check fails or is stopped.
        strings: difficult strings to compare.
        code_points: to compare one by one.

    Raises:
        TextModelError: a tokenizer the graph has no form for; other inputs or an old opset.
        ParityError: a text is read otherwise, or a score differs by more than 1e-5.
    """
    import onnx

    tables = read_tables(tokenizer_directory)
    specials = read_specials(tokenizer_directory)
    rows = RowFormat(
        specials.cls_id, specials.sep_id, specials.pad_id, form.max_length, form.text_pair
    )
    onnx.save(build_text_model(onnx.load(model_file), tables, rows, form), target)
    try:
        inputs, compared, timing = _check_reading(
            tokenizer_directory, tables, rows, strings, code_points
        )
        difference = _check_scores(model_file, tokenizer_directory, target, form, inputs)
    except BaseException:
        target.unlink()
        raise
    size = target.stat().st_size
    return TextModelFacts(
        "all" if len(code_points) == len(EVERY_POINT) else "compared code points",
        compared,
        len(inputs),
        difference,
        size,
        size - model_file.stat().st_size,
        *timing,
    )


def _check_reading(
    directory: Path,
    tables: TextTables,
    rows: RowFormat,
    strings: int,
    code_points: Sequence[int],
) -> tuple[Inputs, int, tuple[dict[int, float], dict[int, float]]]:
    """Compare what the graph and the tokenizer read; returns inputs, code points and times.

    Raises:
        ParityError: with the first script, string or code point that differs.
    """
    file = directory / TOKENIZER_FILE
    whole = replace(rows, max_length=WHOLE, text_pair=False)
    session = open_session(build_row_model(tables, whole).SerializeToString(), threads=1)
    tokenizer = TextTokenizer.load(file, WHOLE)
    different = different_points(session, tokenizer, code_points)
    if different:
        raise ParityError(
            f"{len(different)} characters are read otherwise than by {file}, the first is "
            f"U+{different[0]:04X}; the tables of the graph are wrong"
        )
    pieces = list(tables.words)
    named = difficult_strings(strings, SEED, list(tables.symbols.literals), pieces)
    texts = [text for _, text in named]
    _refuse(different_rows(session, tokenizer, texts), named, file)
    inputs: Inputs = texts
    if rows.text_pair:
        inputs = list(zip(texts, texts[7:] + texts[:7], strict=True))
    cut_session = open_session(build_row_model(tables, rows).SerializeToString(), threads=1)
    cut_tokenizer = TextTokenizer.load(file, rows.max_length, text_pair=rows.text_pair)
    _refuse(different_rows(cut_session, cut_tokenizer, inputs), named, file)
    count = sum(point not in SURROGATES for point in code_points)
    return inputs, count, _times(session, tokenizer, pieces)


def _refuse(different: list[int], named: Sequence[tuple[str, str]], file: Path) -> None:
    if not different:
        return
    scripts = Counter(named[position][0] for position in different)
    listed = ", ".join(f"{script} {count}" for script, count in scripts.most_common())
    raise ParityError(
        f"{len(different)} of {len(named)} strings are read otherwise than by {file} ({listed}), "
        f"the first is {named[different[0]][1][:60]!r}"
    )


def _check_scores(
    model_file: Path, directory: Path, target: Path, form: TextForm, inputs: Inputs
) -> float:
    step = max(1, len(inputs) // SCORED_STRINGS)
    difference = largest_score_difference(
        open_session(target, threads=1),
        open_session(model_file, threads=1),
        TextTokenizer.load(directory / TOKENIZER_FILE, form.max_length, text_pair=form.text_pair),
        inputs[::step],
        form,
    )
    if not difference <= ATOL:
        raise ParityError(
            f"{target}: a score differs by {difference:.3g} from that of {model_file.name} behind "
            f"its tokenizer, more than {ATOL:g}"
        )
    return difference


def _times(
    session: Any, tokenizer: TextTokenizer, pieces: Sequence[str]
) -> tuple[dict[int, float], dict[int, float]]:
    """Milliseconds of CPU per text of 16 and 128 tokens, of the graph and of the library."""
    graph, library = {}, {}
    for tokens in TIMED_TOKENS:
        # words of one piece are the shape of most text
        text = " ".join((list(pieces) * tokens)[: tokens - 2])
        feed = feed_of([text])
        ours = [_seconds(session.run, None, feed) for _ in range(TIMED_CALLS)]
        theirs = [_seconds(tokenizer.encode, [text]) for _ in range(TIMED_CALLS)]
        graph[tokens], library[tokens] = min(ours) * 1000, min(theirs) * 1000
    return graph, library


def _seconds(call: Callable[..., object], *arguments: Any) -> float:
    started = time.thread_time()
    call(*arguments)
    return time.thread_time() - started
