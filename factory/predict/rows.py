"""Read the rows of a file to score, each with its texts or the reason why it cannot be scored."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory.data.formats import DataFile, FileFormat, Quoting, find_format
from factory.data.messages import missing_column, missing_file
from factory.data.reading import BadRow, Row, read_rows, stream_rows
from factory.errors import PredictError

STANDARD_STREAM = Path("-")


@dataclass(frozen=True, slots=True)
class TextRow:
    """A row that can be scored, with its one or two texts."""

    texts: tuple[str, ...]
    row: Row


@dataclass(frozen=True, slots=True)
class Wanted:
    """The columns that a row must have and must not have.

    Args:
        texts: the one or two text columns.
        new: the columns that will be added.
        same_fields: reject JSON rows with a field that the first row does not have.
    """

    texts: tuple[str, ...]
    new: tuple[str, ...]
    same_fields: bool = False


def open_input(path: Path, texts: Sequence[str], quoting: Quoting | None = None) -> DataFile:
    """Detect the format of the file to score; `-` is standard input, in JSON Lines.

    Args:
        quoting: of a delimited file, from the bundle's recipe.

    Raises:
        PredictError: it does not exist.
        DataError: it is empty, or in an unknown format.
    """
    if path == STANDARD_STREAM:
        return DataFile(path, "standard input", FileFormat("jsonl"))
    if not path.is_file():
        raise PredictError(missing_file("--input", str(path), path))
    return find_format(path, columns=texts, quoting=quoting)


def text_rows(file: DataFile, wanted: Wanted) -> Iterator[TextRow | BadRow]:
    """Every row of a file, in order; memory holds one row, or one batch of Parquet.

    Raises:
        PredictError: the file lacks a text column, already has a new column, or has no row.
        DataError: it cannot be decompressed or decoded.
    """
    if file.columns:
        _check_columns(file, file.columns, wanted)
    if file.path == STANDARD_STREAM:
        rows = stream_rows(sys.stdin.buffer, file)
    else:
        rows = read_rows(file, wanted.texts, whole=True)
    first: Sequence[str] = file.columns
    empty = True
    for row in rows:
        empty = False
        if isinstance(row, BadRow):
            yield row
            continue
        if not first:
            first = list(row.values)
            _check_columns(file, first, wanted)
        reason = _problem(row, wanted, None if file.columns else first)
        texts: Any = tuple(row.values.get(name) for name in wanted.texts)
        yield TextRow(texts, row) if reason is None else BadRow(row.number, reason)
    if empty:
        raise PredictError(f"{file.name}: is empty; it needs at least one row")


def row_values(file: DataFile, row: Row) -> dict[str, Any]:
    """A row as values by column name."""
    if file.format.kind == "parquet":
        batch, place = row.source
        return dict(batch.slice(place, 1).to_pylist()[0])
    return row.values


def _problem(row: Row, wanted: Wanted, fields: Sequence[str] | None) -> str | None:
    """Why a row cannot be scored, if so; `fields` are those of the first JSON row."""
    if fields is not None:
        if taken := [name for name in wanted.new if name in row.values]:
            return f"field {taken[0]!r} would be added; see --prefix"
        unknown = [name for name in row.values if name not in fields] if wanted.same_fields else []
        if unknown:
            return f"field {unknown[0]!r} does not exist in the first row"
    for name in wanted.texts:
        value = row.values.get(name)
        if value is None:
            return f"no {name}"
        if not isinstance(value, str):
            return f"{name} is not text"
        if not value.strip():
            return f"{name} is empty"
    return None


def _check_columns(file: DataFile, columns: Sequence[str], wanted: Wanted) -> None:
    for name, option in zip(wanted.texts, ("--text", "--text-pair"), strict=False):
        if name not in columns:
            raise PredictError(missing_column(file.name, option, name, columns))
    if taken := [name for name in wanted.new if name in columns]:
        raise PredictError(
            f"{file.name}: column {taken[0]!r} exists already and would be added; "
            "give the new columns other names, as with --prefix predicted_"
        )
