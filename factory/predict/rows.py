"""The rows of a file to score, one at a time, each with its texts or with what is wrong with it."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory.data.formats import DataFile, FileFormat, Quoting, find_format
from factory.data.messages import missing_file
from factory.data.reading import BadRow, Row, read_rows, stream_rows
from factory.errors import PredictError, short_list

STANDARD_STREAM = Path("-")


@dataclass(frozen=True, slots=True)
class TextRow:
    """A row that can be scored: its one or two texts, and all of it."""

    texts: tuple[str, ...]
    row: Row


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a row must have and must not have.

    Args:
        texts: the names of the one or two text columns.
        new: the names of the columns that will be added.
        same_fields: refuse JSON rows with a field that the first row does not have.
    """

    texts: tuple[str, ...]
    new: tuple[str, ...]
    same_fields: bool = False


def open_input(path: Path, texts: Sequence[str], quoting: Quoting | None = None) -> DataFile:
    """The file to score with its format; `-` is standard input, in JSON Lines.

    Args:
        quoting: of a delimited file, where the bundle's recipe says so.

    Raises:
        PredictError: it does not exist.
        DataError: it is empty, or in no known format.
    """
    if path == STANDARD_STREAM:
        return DataFile(path, "standard input", FileFormat("jsonl"))
    if not path.is_file():
        raise PredictError(missing_file("--input", str(path), path))
    return find_format(path, columns=texts, quoting=quoting)


def text_rows(file: DataFile, wanted: Wanted) -> Iterator[TextRow | BadRow]:
    """Every row of a file, in order; memory holds one of them, or one batch of Parquet.

    Raises:
        PredictError: the file lacks a text column, has one that would be added, or has no row.
        DataError: it cannot be unpacked or decoded.
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
        yield _text_row(row, wanted, None if file.columns else first)
    if empty:
        raise PredictError(f"{file.name}: is empty; it needs at least one row")


def columns_of(file: DataFile, row: Row) -> list[str]:
    """The names of a row's columns; those of the other rows too, where that was asked for."""
    return list(file.columns or row.values)


def row_values(file: DataFile, row: Row) -> dict[str, Any]:
    """A row as values by column name."""
    if file.format.kind == "parquet":
        batch, place = row.source
        return dict(batch.slice(place, 1).to_pylist()[0])
    return row.values


def _text_row(row: Row, wanted: Wanted, fields: Sequence[str] | None) -> TextRow | BadRow:
    """A row, if its texts are texts and its JSON fields (of the first row: `fields`) are right."""
    if fields is not None:
        if taken := [name for name in wanted.new if name in row.values]:
            return BadRow(row.number, f"field {taken[0]!r} would be added; see --prefix")
        unknown = [name for name in row.values if name not in fields] if wanted.same_fields else []
        if unknown:
            return BadRow(row.number, f"field {unknown[0]!r} does not exist in the first row")
    texts = []
    for name in wanted.texts:
        value = row.values.get(name)
        if value is None:
            return BadRow(row.number, f"no {name}")
        if not isinstance(value, str):
            return BadRow(row.number, f"{name} is not a text")
        if not value.strip():
            return BadRow(row.number, f"{name} is empty")
        texts.append(value)
    return TextRow(tuple(texts), row)


def _check_columns(file: DataFile, columns: Sequence[str], wanted: Wanted) -> None:
    for name in wanted.texts:
        if name not in columns:
            nearest = difflib.get_close_matches(name, columns, n=1, cutoff=0.0)
            raise PredictError(
                f"{file.name}: no column {name!r}, only {short_list(columns)}; "
                f"name the right one with --text or --text-pair, "
                f"perhaps {(nearest or [''])[0]!r}"
            )
    if taken := [name for name in wanted.new if name in columns]:
        raise PredictError(
            f"{file.name}: column {taken[0]!r} exists already and would be added; "
            "give the new columns other names, as with --prefix predicted_"
        )
