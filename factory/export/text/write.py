"""One ONNX file from strings to labels and scores, for plain onnxruntime in any language.

The tokenizer becomes nodes of standard ONNX and one operator that is built into onnxruntime,
`com.microsoft.Tokenizer`, here used to split strings into characters. No library of custom
operators is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from factory.errors import ParityError
from factory.export.parity import open_session
from factory.export.text.characters import SURROGATES
from factory.export.text.check import (
    ATOL,
    Inputs,
    different_points,
    different_rows,
    largest_score_difference,
)
from factory.export.text.model import TextForm, build_row_model, build_text_model
from factory.export.text.strings import difficult_strings
from factory.export.text.tokenizer import (
    TOKENIZER_FILE,
    RowFormat,
    TextTables,
    read_row_format,
    read_tables,
)
from serving.bundle import read_manifest
from serving.tokenization import TextTokenizer

STRINGS = 10_000
SEED = 20
SCORED_STRINGS = 150
EVERY_POINT = range(0x110000)
WHOLE = 2**20  # a max_length that truncates nothing


@dataclass(frozen=True, slots=True)
class TextModelFacts:
    """Facts about a written text model and its comparison.

    Args:
        code_points: compared one by one, alone and within a word; without surrogates.
        strings: difficult ones compared, whole and truncated to max_length.
        largest_difference: of a score from those of tokenizer and network run separately.
    """

    code_points: int
    strings: int
    largest_difference: float
    size_bytes: int


def write_bundle_text_model(bundle: Path, target: Path) -> TextModelFacts:
    """Write the text model of a bundle.

    Raises:
        BundleError: the directory is not a bundle.
        TextModelError, ParityError: as `write_text_model`.
    """
    manifest = read_manifest(bundle)
    thresholds = manifest.thresholds if isinstance(manifest.thresholds, list) else None
    form = TextForm(
        manifest.task, manifest.labels, manifest.text_pair, manifest.max_length, thresholds
    )
    return write_text_model(bundle / manifest.model.file, bundle, target, form)


def write_text_model(
    model_file: Path,
    tokenizer_directory: Path,
    target: Path,
    form: TextForm,
    *,
    strings: int = STRINGS,
    code_points: Sequence[int] = EVERY_POINT,
) -> TextModelFacts:
    """Write one file that takes strings, and compare it with tokenizer and network run separately.

    Inputs: `text` and, for models of pairs, `text_pair`: strings (batch,). Outputs: `label` and
    `scores` as docs/export.md describes, `token_count` int64 (batch,), `truncated` bool (batch,).

    Args:
        model_file: any ONNX form of the student, opset 14 or later.
        tokenizer_directory: a bundle or a student's folder, for its tokenizer.json.
        target: the file to write; removed again if a check fails or is interrupted.
        strings: difficult strings to compare.
        code_points: to compare one by one.

    Raises:
        TextModelError: a tokenizer the graph does not support; other inputs or an old opset.
        ParityError: a text is tokenized differently, or a score differs by more than 1e-5.
    """
    import onnx

    tables = read_tables(tokenizer_directory)
    rows = read_row_format(tokenizer_directory, form.max_length, form.text_pair)
    onnx.save(build_text_model(onnx.load(model_file), tables, rows, form), target)
    tokenizer_file = tokenizer_directory / TOKENIZER_FILE
    try:
        inputs = _check_tokens(tokenizer_file, tables, rows, strings, code_points)
        difference = largest_score_difference(
            open_session(target, threads=1),
            open_session(model_file, threads=1),
            TextTokenizer.load(tokenizer_file, form.max_length, text_pair=form.text_pair),
            inputs[:: max(1, len(inputs) // SCORED_STRINGS)],
            form,
        )
        if not difference <= ATOL:
            raise ParityError(
                f"{target}: a score differs by {difference:.3g} from tokenizer and "
                f"{model_file.name} run separately, more than {ATOL:g}"
            )
    except BaseException:
        target.unlink()
        raise
    compared = sum(point not in SURROGATES for point in code_points)
    return TextModelFacts(compared, len(inputs), difference, target.stat().st_size)


def _check_tokens(
    file: Path, tables: TextTables, rows: RowFormat, strings: int, code_points: Sequence[int]
) -> Inputs:
    """Compare the tokens of graph and tokenizer; returns the inputs compared.

    Raises:
        ParityError: with the first string or code point that differs.
    """
    whole = replace(rows, max_length=WHOLE, text_pair=False)
    session = open_session(build_row_model(tables, whole).SerializeToString(), threads=1)
    tokenizer = TextTokenizer.load(file, WHOLE)
    if different := different_points(session, tokenizer, code_points):
        raise ParityError(
            f"{len(different)} characters are tokenized differently from {file}, the first is "
            f"U+{different[0]:04X}; the tables of the graph are wrong"
        )
    texts = difficult_strings(strings, SEED, list(tables.symbols.literals), tables.words)
    different = different_rows(session, tokenizer, texts)
    inputs: Inputs = texts
    if rows.text_pair:
        inputs = list(zip(texts, texts[7:] + texts[:7], strict=True))
    session = open_session(build_row_model(tables, rows).SerializeToString(), threads=1)
    tokenizer = TextTokenizer.load(file, rows.max_length, text_pair=rows.text_pair)
    different = different or different_rows(session, tokenizer, inputs)
    if different:
        raise ParityError(
            f"{len(different)} of {len(texts)} strings are tokenized differently from {file}, "
            f"the first is {texts[different[0]][:60]!r}"
        )
    return inputs
