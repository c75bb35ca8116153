"""Rows of a file, one at a time, each with its number, or with what is wrong with it."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, TextIO

import msgspec

from factory.errors import PredictError, short_list
from factory.predict.files import DataFile, open_bytes, open_text, parquet_module

# A quotation mark that is never closed makes the rest of a file one field: stop there instead.
FIELD_CHARACTERS = 16 * 1024 * 1024
PARQUET_BATCH = 1024
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its number, its one or two texts, and all of it in the form of its file.

    `content` is a list of cells (csv, tsv), the line and its object (jsonl), or a record batch and
    a place in it (parquet).
    """

    number: int
    texts: tuple[str, ...]
    content: Any


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be scored."""

    number: int
    reason: str


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
    same_fields: bool


def read_rows(file: DataFile, wanted: Wanted) -> Iterator[Row | BadRow]:
    """Every row of a file, in order; memory holds one of them, or one batch of Parquet.

    Raises:
        PredictError: the file is empty, lacks a text column, or has one that would be added.
    """
    if file.format == "parquet":
        yield from _parquet_rows(file, wanted)
        return
    if file.format == "jsonl":
        with open_bytes(file) as stream:
            yield from _json_rows(stream, file, wanted)
        return
    with open_text(file) as text:
        yield from _delimited_rows(text, file, wanted)


def unit(file: DataFile) -> str:
    """What a row's number counts."""
    return "row" if file.format == "parquet" else "line"


def columns_of(file: DataFile, row: Row) -> list[str]:
    """The names of a row's columns; those of the other rows too, where that was asked for."""
    if file.format == "jsonl":
        return list(row.content[1])
    if file.format == "parquet":
        return list(row.content[0].schema.names)
    with open_text(file) as text:
        return list(next(_csv_reader(text, file)))


def row_values(file: DataFile, row: Row, columns: Sequence[str]) -> dict[str, Any]:
    """A row as values by column name."""
    if file.format == "jsonl":
        return dict(row.content[1])
    if file.format == "parquet":
        batch, place = row.content
        return dict(batch.slice(place, 1).to_pylist()[0])
    return dict(zip(columns, row.content, strict=True))


def _delimited_rows(text: TextIO, file: DataFile, wanted: Wanted) -> Iterator[Row | BadRow]:
    csv.field_size_limit(FIELD_CHARACTERS)
    reader = _csv_reader(text, file)
    try:
        header = next(reader, None)
    except csv.Error as error:
        raise PredictError(f"{file.path}, line 1: {error}; write a header of names") from error
    if header is None:
        raise _empty(file)
    _check_columns(file, header, wanted)
    places = [header.index(name) for name in wanted.texts]
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield BadRow(number, str(error))
            continue
        if cells is None:
            return
        if not cells:  # an empty line
            continue
        if len(cells) != len(header):
            yield BadRow(number, f"has {len(cells)} cells, the header has {len(header)}")
        elif not _has_bytes("".join(cells)):
            yield BadRow(number, "is not UTF-8")
        else:
            yield _row(number, [cells[place] for place in places], cells, wanted)


def _csv_reader(text: TextIO, file: DataFile) -> Any:
    # as where training data is read: quotation marks in tsv files are characters
    if file.format == "tsv":
        return csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    return csv.reader(text, strict=True)


def _json_rows(stream: IO[bytes], file: DataFile, wanted: Wanted) -> Iterator[Row | BadRow]:
    fields: dict[str, Any] | None = None
    empty = True
    for number, line in enumerate(stream, start=1):
        if number == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
        line = line.strip()
        if not line:
            continue
        empty = False
        try:
            values = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            yield BadRow(number, f"is not JSON ({error})")
            continue
        if not isinstance(values, dict):
            yield BadRow(number, "is not a JSON object")
            continue
        if fields is None:
            _check_columns(file, list(values), wanted)
            fields = values
        yield _json_row(number, line, values, fields, wanted)
    if empty:
        raise _empty(file)


def _json_row(
    number: int, line: bytes, values: dict[str, Any], first: dict[str, Any], wanted: Wanted
) -> Row | BadRow:
    """One object, compared with the first."""
    if taken := [name for name in wanted.new if name in values]:
        return BadRow(number, f"has a field {taken[0]!r}, which would be added; see --prefix")
    if wanted.same_fields and (unknown := [name for name in values if name not in first]):
        return BadRow(number, f"has a field {unknown[0]!r}, which the first row does not have")
    return _row(number, [values.get(name) for name in wanted.texts], (line, values), wanted)


def _parquet_rows(file: DataFile, wanted: Wanted) -> Iterator[Row | BadRow]:
    import pyarrow

    module = parquet_module()
    try:
        with module.ParquetFile(file.path, pre_buffer=False) as opened:
            _check_columns(file, opened.schema_arrow.names, wanted)
            if opened.metadata.num_rows == 0:
                raise _empty(file)
            number = 0
            for batch in opened.iter_batches(batch_size=PARQUET_BATCH):
                texts = [batch.column(name).to_pylist() for name in wanted.texts]
                for place, values in enumerate(zip(*texts, strict=True)):
                    number += 1
                    yield _row(number, values, (batch, place), wanted)
    except pyarrow.ArrowException as error:
        raise PredictError(f"{file.path}: cannot be read as Parquet ({error})") from error


def _row(number: int, values: Sequence[Any], content: Any, wanted: Wanted) -> Row | BadRow:
    """A row, if its texts are texts."""
    for name, value in zip(wanted.texts, values, strict=True):
        if value is None:
            return BadRow(number, f"has no {name}")
        if not isinstance(value, str):
            return BadRow(number, f"{name} is not a text")
        if not value.strip():
            return BadRow(number, f"{name} is empty")
        if not _has_bytes(value):
            return BadRow(number, f"{name} has characters without UTF-8 form")
    return Row(number, tuple(values), content)


def _has_bytes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_columns(file: DataFile, columns: Sequence[str], wanted: Wanted) -> None:
    where = f"{file.path}"
    if repeated := [name for name in columns if list(columns).count(name) > 1]:
        raise PredictError(f"{where}: two columns are called {repeated[0]!r}; rename one")
    for name in wanted.texts:
        if name not in columns:
            nearest = difflib.get_close_matches(name, columns, n=1, cutoff=0.0)
            raise PredictError(
                f"{where}: has no column {name!r}, it has {short_list(columns)}; "
                f"name the right one with --text or --text-pair, "
                f"perhaps {(nearest or [''])[0]!r}"
            )
    if taken := [name for name in wanted.new if name in columns]:
        raise PredictError(
            f"{where}: has a column {taken[0]!r} already, which would be added; "
            "give the new ones another name, as with --prefix predicted_"
        )


def _empty(file: DataFile) -> PredictError:
    return PredictError(f"{file.path}: is empty; it needs at least one row")
