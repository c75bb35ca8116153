"""Read a data file row by row; each row has its number, or the reason why it cannot be read."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import msgspec

from factory.data.formats import (
    DataFile,
    csv_records,
    decoded,
    file_error,
    open_bytes,
    open_parquet,
    parquet_schema,
)

PARQUET_BATCH = 1024
QUOTING_REASONS = {
    "unexpected end of data": "a quotation mark that is never closed",
    "expected after": "text after a closing quotation mark",
    "field larger": "a field that is too long, perhaps after a quotation mark that is never closed",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Args:
        number: the line it begins on, or its position in a Parquet file or JSON array; from 1.
        values: by column; of Parquet the requested columns.
        source: the line of a JSON Lines file in UTF-8 without its end; of Parquet a record batch
            and a position in it.
    """

    number: int
    values: dict[str, Any]
    source: Any = None


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be read.

    Args:
        reason: as in "line 3: 2 fields, the header has 3".
        quoting: whether its quotation marks may be the cause.
    """

    number: int
    reason: str
    quoting: bool = False


def read_rows(
    file: DataFile, columns: Sequence[str] = (), whole: bool = False
) -> Iterator[Row | BadRow]:
    """Every row in order; blank lines are skipped.

    Memory holds one row, one batch of Parquet, or a whole JSON array.

    Args:
        columns: of a Parquet file, those in `values`; empty: all.
        whole: whether a row's `source` needs the other columns of a Parquet file, too.

    Raises:
        DataError: the file cannot be opened, decompressed or decoded.
    """
    if file.format.kind == "parquet":
        yield from _parquet_rows(file, columns or file.columns, whole)
        return
    try:
        with open_bytes(file.path, file.name, file.format.gzipped) as stream:
            yield from stream_rows(stream, file)
    except UnicodeDecodeError as error:
        problem = f"cannot be decoded as {error.encoding} ({error.reason}); save it as UTF-8"
        raise file_error(file.name, problem) from error


def stream_rows(stream: IO[bytes], file: DataFile) -> Iterator[Row | BadRow]:
    """The rows of decompressed bytes in the format of `file`, except Parquet."""
    if file.format.kind == "json":
        yield from _array_rows(stream.read(), file)
    elif file.format.kind == "jsonl":
        yield from _json_rows(_utf8_lines(stream, file.format.encoding))
    else:
        text = decoded(stream, file.format.encoding)
        try:
            if file.format.kind == "lines":
                for number, line in enumerate(text, start=1):
                    reason = _undecoded(line)
                    row = Row(number, {"text": line.rstrip("\r\n")})
                    yield BadRow(number, reason) if reason else row
            else:
                yield from _delimited_rows(text, file)
        finally:
            text.detach()


def declared_classes(file: DataFile, column: str) -> tuple[str, ...] | None:
    """The class names that `datasets` wrote into a Parquet file, if any."""
    if file.format.kind != "parquet":
        return None
    metadata = parquet_schema(file).metadata or {}
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    feature = features.get(column, {})
    while isinstance(feature, list) or "feature" in feature:  # a list of classes
        feature = feature[0] if isinstance(feature, list) else feature["feature"]
    names = feature.get("names") if feature.get("_type") == "ClassLabel" else None
    return None if names is None else tuple(names)


def _delimited_rows(text: Iterable[str], file: DataFile) -> Iterator[Row | BadRow]:
    reader = csv_records(text, file.format.delimiter or ",", file.format.quoting or "standard")
    header = file.format.header
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            reasons = (reason for part, reason in QUOTING_REASONS.items() if part in str(error))
            yield BadRow(number, next(reasons, str(error)), quoting=True)
            header = False
            continue
        if cells is None:
            return
        if not cells:
            continue
        if header:
            header = False
        elif len(cells) != len(file.columns):
            fields = "1 field" if len(cells) == 1 else f"{len(cells)} fields"
            first = "header" if file.format.header else "first row"
            marked = file.format.quoting == "none" and any('"' in cell for cell in cells)
            yield BadRow(number, f"{fields}, the {first} has {len(file.columns)}", marked)
        elif reason := _undecoded("".join(cells)):
            yield BadRow(number, reason)
        else:
            yield Row(number, dict(zip(file.columns, cells, strict=True)))


def _utf8_lines(stream: IO[bytes], encoding: str) -> Iterator[bytes]:
    if encoding.startswith("utf-8"):
        yield from stream
        return
    text = decoded(stream, encoding)
    try:
        yield from (line.encode("utf-8", "surrogateescape") for line in text)
    finally:
        text.detach()


def _json_rows(lines: Iterable[bytes]) -> Iterator[Row | BadRow]:
    for number, line in enumerate(lines, start=1):
        content = (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).strip()
        if not content:
            continue
        try:
            values = msgspec.json.decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            yield BadRow(number, f"invalid JSON ({error})")
            continue
        yield _object_row(number, values, content)


def _array_rows(content: bytes, file: DataFile) -> Iterator[Row | BadRow]:
    text = content.decode(file.format.encoding, "surrogateescape")
    try:
        rows = msgspec.json.decode(text.encode("utf-8", "surrogateescape"))
    except (msgspec.DecodeError, RecursionError) as error:
        raise file_error(file.name, f"is not JSON ({error}); write one object per line") from error
    for number, values in enumerate(rows, start=1):
        yield _object_row(number, values)


def _object_row(number: int, values: object, line: bytes | None = None) -> Row | BadRow:
    if isinstance(values, dict):
        return Row(number, values, line)
    return BadRow(number, f"{kind_of(values)} instead of a JSON object")


def _parquet_rows(file: DataFile, columns: Sequence[str], whole: bool) -> Iterator[Row]:
    names = list(dict.fromkeys(columns))
    number = 0
    with open_parquet(file) as opened:
        for batch in opened.iter_batches(PARQUET_BATCH, columns=None if whole else names):
            read = [batch.column(name).to_pylist() for name in names]
            for place, values in enumerate(zip(*read, strict=True)):
                number += 1
                yield Row(number, dict(zip(names, values, strict=True)), (batch, place))


def kind_of(value: object) -> str:
    """The type of a JSON value, in words."""
    names = {bool: "true or false", int: "a number", float: "a number", list: "a list"}
    return (names | {dict: "an object", str: "text", type(None): "null"}).get(
        type(value), type(value).__name__
    )


def _undecoded(text: str) -> str | None:
    """A reason that names the first byte that is invalid in the encoding; None if all are valid."""
    if text.isascii() or (match := re.search("[\udc80-\udcff]", text)) is None:
        return None
    byte = ord(match[0]) - 0xDC00
    return f"byte 0x{byte:02x} is not part of the file's encoding; save it as UTF-8"
