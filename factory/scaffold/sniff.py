"""A data file of unknown make to columns: encoding, delimiter, quoting and header are found out."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from factory.data.source import FILES_HEADLINE, missing_file
from factory.data.telling import count, places
from factory.errors import DataError
from factory.scaffold.header import has_header, header_names

DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
SAMPLE = 2_000_000  # characters that decide about delimiter and quoting
LONGEST_FIELD = 2**30
Quoting = Literal["standard", "none"]


@dataclass(frozen=True, slots=True)
class Sheet:
    """The columns of a file.

    Args:
        name: the path, as messages show it.
        kind: how it is written, in words.
        columns: values of each column, all equally many.
        numbers: line (or row) of each value, from 1.
        notes: what was found odd, one line each.
        quoting: how quotation marks of a delimited file are meant; None for other files.
    """

    name: str
    kind: str
    columns: dict[str, list[Any]]
    numbers: list[int]
    notes: tuple[str, ...] = ()
    quoting: Quoting | None = None

    def __len__(self) -> int:
        return len(self.numbers)


def read_sheet(path: Path, wanted: Sequence[str] = ()) -> Sheet:
    """Read csv, tsv, JSON Lines, a JSON list or parquet by what the file holds, not by its name.

    Args:
        wanted: column names the user gave; a first line that holds one is a header.

    Raises:
        DataError: no such file, or nothing in it that can be read.
    """
    if not path.is_file():
        raise DataError(FILES_HEADLINE, [missing_file("init", str(path), path)])
    content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            problem = f"{path}: cannot be unpacked ({error}); pack it again"
            raise DataError(FILES_HEADLINE, [problem]) from error
    if content.startswith(b"PAR1"):
        return _parquet(path, content)
    text, notes = _decoded(content, str(path))
    if not text.strip():
        raise DataError(FILES_HEADLINE, [f"{path}: is empty; it needs a header and rows"])
    if text.lstrip()[0] in "{[":
        rows = _json_rows(text)
        if rows:
            return _from_rows(str(path), rows, notes)
    return _delimited(text, path, wanted, notes)


def _decoded(content: bytes, name: str) -> tuple[str, list[str]]:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace"), ["encoding UTF-16"]
    try:
        return content.decode("utf-8").removeprefix("\ufeff"), []
    except UnicodeDecodeError:
        if b"\0" in content:
            problem = f"{name}: is no text file; give csv, tsv, jsonl or parquet (.gz may follow)"
            raise DataError(FILES_HEADLINE, [problem]) from None
    # every byte that Windows-1252 leaves undefined becomes a mark that can be searched for
    return content.decode("cp1252", errors="replace"), ["encoding Windows-1252, not UTF-8"]


def _json_rows(text: str) -> list[tuple[int, dict[str, Any]]]:
    """Objects with their line numbers; none when the text is something else."""
    try:
        if text.lstrip().startswith("["):
            listed = json.loads(text)
            if isinstance(listed, list) and all(isinstance(row, dict) for row in listed):
                return list(enumerate(listed, start=1))
            return []
        numbered = enumerate(text.split("\n"), start=1)
        rows = [(number, json.loads(line)) for number, line in numbered if line.strip()]
    except (ValueError, RecursionError):
        return []
    return rows if all(isinstance(row, dict) for _, row in rows) else []


def _from_rows(name: str, rows: list[tuple[int, dict[str, Any]]], notes: list[str]) -> Sheet:
    keys = dict.fromkeys(key for _, row in rows for key in row)
    columns = {key: [row.get(key) for _, row in rows] for key in keys}
    return Sheet(name, "JSON", columns, [number for number, _ in rows], tuple(notes))


def _parquet(path: Path, content: bytes) -> Sheet:
    import pyarrow.parquet

    try:
        columns = pyarrow.parquet.read_table(io.BytesIO(content)).to_pydict()
    except (OSError, ValueError) as error:
        problem = f"{path}: is no readable parquet file ({error}); write it again"
        raise DataError(FILES_HEADLINE, [problem]) from error
    rows = len(next(iter(columns.values()), []))
    return Sheet(str(path), "parquet", columns, list(range(1, rows + 1)))


Records = list[tuple[int, list[str]]]


def _delimited(text: str, path: Path, wanted: Sequence[str], notes: list[str]) -> Sheet:
    own = "\t" if ".tsv" in [ending.lower() for ending in path.suffixes] else ","
    delimiter, quoting = _shape(text, own)
    records = _records(text, delimiter, quoting)
    filled = [(number, fields) for number, fields in records if any(map(str.strip, fields))]
    if not filled:
        raise DataError(FILES_HEADLINE, [f"{path}: holds no value; it needs a header and rows"])
    blank = len(records) - len(filled)
    width = _usual_width(filled)
    if width < 2:
        problem = (
            f"{path}: one column only; a text and a label are needed, separated by "
            f"{', '.join(DELIMITERS.values())}"
        )
        raise DataError(FILES_HEADLINE, [problem])
    uneven = [number for number, fields in filled if len(fields) != width]
    rows = [(number, fields) for number, fields in filled if len(fields) == width]
    headed = has_header([fields for _, fields in rows], wanted)
    names = header_names(rows[0][1] if headed else [""] * width)
    rows = rows[headed:]
    if not headed:
        notes.append(f"no header line; the columns are called {', '.join(names)}")
    if blank:
        notes.append(f"{count(blank, 'blank line')} left out")
    if uneven:
        where = places(str(path), "line", uneven)
        notes.append(f"{where}: {count(len(uneven), 'row')} without {width} fields, left out")
    if quoting == "none" and delimiter == ",":
        notes.append("quotation marks are ordinary characters")
    columns = {name: [fields[i] for _, fields in rows] for i, name in enumerate(names)}
    kind = f"fields separated by {DELIMITERS[delimiter]}"
    return Sheet(str(path), kind, columns, [n for n, _ in rows], tuple(notes), quoting)


def _shape(text: str, own: str) -> tuple[str, Quoting]:
    """The delimiter and quoting under which most records have equally many fields, at least 2."""

    if len(text) > SAMPLE:
        text = text[: text.rfind("\n", 0, SAMPLE) + 1] or text

    def score(delimiter: str, quoting: Quoting) -> tuple[bool, int, bool, bool]:
        records = [(n, fields) for n, fields in _records(text, delimiter, quoting) if fields]
        width = _usual_width(records)
        even = sum(len(fields) == width for _, fields in records)
        raw = records if quoting == "none" else _records(text, delimiter, "none")
        quoted = any(value.startswith('"') for _, fields in raw for value in fields)
        closed = _all_closed(text, delimiter)
        meant = closed if quoting == "standard" else not (quoted and closed)
        return width > 1, 2 * even - len(records), delimiter == own, meant

    ways: list[tuple[str, Quoting]] = [
        (delimiter, quoting)
        for delimiter in (own, *(mark for mark in DELIMITERS if mark != own))
        for quoting in (("standard", "none") if delimiter != "\t" else ("none", "standard"))
    ]
    return max(ways, key=lambda way: score(*way))


def _records(text: str, delimiter: str, quoting: Quoting) -> Records:
    csv.field_size_limit(LONGEST_FIELD)
    lines = io.StringIO(text, newline="")
    if quoting == "standard":
        reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL)
    else:
        reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    records: Records = []
    begins = 1
    for fields in reader:
        records.append((begins, fields))
        begins = reader.line_num + 1
    return records


def _all_closed(text: str, delimiter: str) -> bool:
    """Whether every field that begins with a quotation mark ends with one, as a writer does it."""
    try:
        for _ in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True):
            pass
    except csv.Error as error:
        return "unexpected end" in str(error) and len(text) > SAMPLE // 2  # cut within a field
    return True


def _usual_width(records: Records) -> int:
    widths = Counter(len(fields) for _, fields in records if fields)
    return widths.most_common(1)[0][0] if widths else 0
