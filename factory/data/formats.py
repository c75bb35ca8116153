"""Detect the format of a data file: compression, encoding, delimiter, quoting and header.

The file name only breaks ties. No file is read into memory as a whole.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal

import msgspec

from factory.errors import DataError, MissingDependencyError

Kind = Literal["delimited", "jsonl", "json", "parquet", "lines"]
Quoting = Literal["standard", "none"]

DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
FILES_HEADLINE = "the data files cannot be used"
# Characters that delimiter, quoting and header are detected from.
SAMPLE = 256 * 1024
CHUNK = 1024 * 1024
# An unclosed quotation mark would make the rest of a file one field.
FIELD_CHARACTERS = 16 * 1024 * 1024
LONGEST_NAME = 60  # characters of a column name; longer cells of a first row are texts
MOST_WORDS = 5
DECIMAL_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
NUMBERED_COLUMN = re.compile(r"column_[1-9][0-9]*")
JSON_ENDINGS = (".jsonl", ".ndjson", ".json")
OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive or an Excel workbook; unpack it, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word document; save it as CSV",
    b"BZh": "packed with bzip2; unpack it, or pack it with gzip",
    b"\xfd7zXZ": "packed with xz; unpack it, or pack it with gzip",
    b"\x28\xb5\x2f\xfd": "packed with zstd; unpack it, or pack it with gzip",
}


@dataclass(frozen=True, slots=True)
class FileFormat:
    """How the bytes of a file become rows.

    Args:
        kind: delimited (csv, tsv and the like), jsonl, json (one array of objects), parquet, or
            lines (one text per line).
        encoding: a Python codec; unused by Parquet.
        quoting: "standard" (RFC 4180), or "none": quotation marks are ordinary characters.
        header: whether the first row of a delimited file names the columns.
    """

    kind: Kind
    gzipped: bool = False
    encoding: str = "utf-8"
    delimiter: str | None = None
    quoting: Quoting | None = None
    header: bool = True

    def __str__(self) -> str:
        kinds = {"jsonl": "JSON Lines", "json": "JSON", "parquet": "Parquet", "lines": "lines"}
        mark = "" if self.delimiter is None else f"fields separated by {DELIMITERS[self.delimiter]}"
        return f"{kinds.get(self.kind, mark)}{', gzip' if self.gzipped else ''}"


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file with its format.

    Args:
        name: the path as messages show it.
        columns: of a delimited or Parquet file, in order. A column without a name is called
            column_N, and a repeated name is numbered.
    """

    path: Path
    name: str
    format: FileFormat
    columns: tuple[str, ...] = ()

    @property
    def unit(self) -> Literal["line", "row"]:
        """The unit of row numbers."""
        return "row" if self.format.kind in ("parquet", "json") else "line"


def file_error(name: str, problem: str) -> DataError:
    """A file that cannot be used."""
    return DataError(FILES_HEADLINE, [f"{name}: {problem}"])


def find_format(
    path: Path,
    name: str | None = None,
    columns: Sequence[str] = (),
    quoting: Quoting | Literal["guess"] | None = None,
    lines: bool = False,
) -> DataFile:
    """Detect a file's format; reads all of its bytes only where the encoding depends on them.

    Args:
        name: the file's name in messages; unset: its path.
        columns: expected names. They decide delimiter and header, so that detection does not
            depend on the number of rows.
        quoting: of a delimited file; unset: "none" for tabs, else "standard"; "guess": detected.
        lines: whether a .txt file holds one text per line.

    Raises:
        DataError: the file is empty, compressed or encoded in an unsupported way, or names one of
            `columns` twice.
        MissingDependencyError: Parquet without pyarrow.
    """
    name = name or str(path)
    gzipped = is_gzipped(path, name)
    with open_bytes(path, name, gzipped) as stream:
        start = stream.read(16)
    for magic, what in OTHER_FORMATS.items():
        if start.startswith(magic):
            raise file_error(name, f"is {what}")
    if start.startswith(b"PAR1"):
        file = DataFile(path, name, FileFormat("parquet", gzipped, ""))
        return replace(file, columns=tuple(parquet_schema(file).names))
    encoding = _encoding(path, name, gzipped)
    sample = _sample(path, name, gzipped, encoding)
    if not sample.strip():
        raise file_error(name, "is empty; it needs rows")
    endings = [ending.lower() for ending in path.suffixes if ending.lower() != ".gz"]
    ending = endings[-1] if endings else ""
    if lines and ending == ".txt":
        return DataFile(path, name, FileFormat("lines", gzipped, encoding))
    if (kind := _json_kind(sample, ending)) is not None:
        return DataFile(path, name, FileFormat(kind, gzipped, encoding))
    delimiter, found = _delimiter(sample, "\t" if ending == ".tsv" else ",", columns, quoting)
    rows = list(_records(sample, delimiter, found))
    header = _has_header(rows, columns)
    first = rows[0] if header else [""] * len(rows[0])
    for column in columns:
        if header and first.count(column) > 1:
            raise file_error(name, f"two columns are called {column!r}; rename one")
    file_format = FileFormat("delimited", gzipped, encoding, delimiter, found, header)
    return DataFile(path, name, file_format, _column_names(first))


def is_gzipped(path: Path, name: str) -> bool:
    """Whether a file starts with the signature of gzip."""
    with open_bytes(path, name, False) as stream:
        return stream.read(2) == b"\x1f\x8b"


@contextmanager
def open_bytes(path: Path, name: str, gzipped: bool) -> Iterator[IO[bytes]]:
    """Open the decompressed bytes of a file.

    Raises:
        DataError: it cannot be opened or decompressed.
    """
    try:
        with gzip.open(path, "rb") if gzipped else path.open("rb") as stream:
            yield stream  # type: ignore[misc]  # a GzipFile reads bytes, too
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise file_error(name, f"cannot be decompressed ({error}); compress it again") from error
    except OSError as error:
        raise file_error(name, f"cannot be read ({error.strerror or error})") from error


def decoded(stream: IO[bytes], encoding: str) -> io.TextIOWrapper:
    """Decode with the original line ends; undecodable bytes become lone surrogates."""
    return io.TextIOWrapper(stream, encoding, errors="surrogateescape", newline="")


def csv_records(text: Iterable[str], delimiter: str, quoting: Quoting, strict: bool = True) -> Any:
    """The standard library's reader; `strict` about quotation marks."""
    csv.field_size_limit(FIELD_CHARACTERS)
    if quoting == "none":
        return csv.reader(text, delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=strict)
    return csv.reader(text, delimiter=delimiter, strict=strict)


@contextmanager
def open_parquet(file: DataFile) -> Iterator[Any]:
    """Open a pyarrow ParquetFile.

    Raises:
        DataError: the file cannot be read as Parquet.
        MissingDependencyError: pyarrow is not installed.
    """
    parquet = parquet_module()
    try:
        source: Any = file.path
        if file.format.gzipped:  # Parquet needs to seek, so the file is held in memory
            with open_bytes(file.path, file.name, True) as stream:
                source = io.BytesIO(stream.read())
        with parquet.ParquetFile(source, pre_buffer=False) as opened:
            yield opened
    except (OSError, ValueError) as error:  # base classes of Arrow's errors
        raise file_error(
            file.name, f"cannot be read as Parquet ({error}); write it again"
        ) from error


def parquet_module() -> Any:
    """Import pyarrow.parquet.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError(
            "Parquet needs pyarrow, which is not installed; run: pip install 'pyarrow>=15,<27'"
        ) from error
    return pyarrow.parquet


def parquet_schema(file: DataFile) -> Any:
    """The Arrow schema of a Parquet file."""
    with open_parquet(file) as opened:
        return opened.schema_arrow


def _encoding(path: Path, name: str, gzipped: bool) -> str:
    """UTF-16 by its byte order mark; else UTF-8, unless most bytes beyond ASCII are invalid in it.

    A file with a few invalid bytes stays UTF-8: only those rows are reported, and reading the file
    as Windows-1252 would garble all others.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="surrogateescape")
    broken = valid = 0
    zeros = False
    with open_bytes(path, name, gzipped) as stream:
        chunk = stream.read(CHUNK)
        if chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        marked = chunk.startswith(codecs.BOM_UTF8)
        while chunk:
            zeros = zeros or b"\0" in chunk
            if not chunk.isascii() or decoder.getstate()[0]:
                text = decoder.decode(chunk)
                broken += len(re.findall("[\udc80-\udcff]", text))
                valid += len(re.findall("[^\0-\x7f\udc80-\udcff]", text))
            chunk = stream.read(CHUNK)
    broken += bool(decoder.getstate()[0])  # a character that the file's end cuts off
    if broken <= valid:
        return "utf-8-sig" if marked else "utf-8"
    if zeros:
        raise file_error(name, "is not text; give a csv, tsv, jsonl or Parquet file (also gzipped)")
    return "cp1252"


def _sample(path: Path, name: str, gzipped: bool, encoding: str) -> str:
    """The first lines."""
    with open_bytes(path, name, gzipped) as stream:
        text = decoded(stream, encoding)
        try:
            sample = text.read(SAMPLE)
        except UnicodeDecodeError as error:
            problem = f"cannot be decoded as UTF-16 ({error.reason}); save it as UTF-8"
            raise file_error(name, problem) from error
        text.detach()
    if len(sample) < SAMPLE:
        return sample
    return sample[: sample.rfind("\n") + 1] or sample


def _json_kind(sample: str, ending: str) -> Kind | None:
    begin = sample.lstrip()[:1]
    if begin == "[" and (ending == ".json" or re.match(r"\s*\[\s*\{\s*\"", sample)):
        return "json"
    if ending in JSON_ENDINGS:
        return "jsonl"
    if begin == "{":
        try:
            first = msgspec.json.decode(sample.lstrip().partition("\n")[0].encode())
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return None
        return "jsonl" if isinstance(first, dict) else None
    return None


def _delimiter(
    sample: str, own: str, columns: Sequence[str], quoting: Quoting | Literal["guess"] | None
) -> tuple[str, Quoting]:
    """The first dialect whose header has all columns, else the one with the most even rows.

    Args:
        own: the delimiter that the file name implies; tried first.
    """
    delimiters = (own, *(mark for mark in DELIMITERS if mark != own))
    usual: list[tuple[str, Quoting]] = [
        (mark, "none" if mark == "\t" else "standard") for mark in delimiters
    ]
    dialects = [*usual, *((mark, _other(quotes)) for mark, quotes in usual)]
    if quoting not in (None, "guess"):
        dialects = usual = [dialect for dialect in dialects if dialect[1] == quoting]
    headed = [
        dialect
        for dialect in dialects
        if columns and set(columns) <= set(next(_records(sample, *dialect), []))
    ]
    if headed and quoting != "guess":
        return headed[0]
    first = [dialect for dialect in headed if dialect[0] == headed[0][0]]
    candidates = first or (dialects if quoting == "guess" else usual)
    return max(candidates, key=lambda dialect: _evenness(sample, dialect[0], dialect[1], own))


def _other(quoting: Quoting) -> Quoting:
    return "standard" if quoting == "none" else "none"


def _evenness(sample: str, delimiter: str, quoting: Quoting, own: str) -> tuple[object, ...]:
    """How well a dialect fits: several columns, equally many in most rows, plausible quoting."""
    rows = list(_records(sample, delimiter, quoting))
    ((width, even),) = Counter(map(len, rows)).most_common(1)
    raw = rows if quoting == "none" else _records(sample, delimiter, "none")
    quoted = any(cell.startswith('"') for cells in raw for cell in cells)
    closed = _all_closed(sample, delimiter)
    plausible = closed if quoting == "standard" else not (quoted and closed)
    return width > 1, even / len(rows), delimiter == own, plausible


def _all_closed(sample: str, delimiter: str) -> bool:
    """Whether every field that begins with a quotation mark ends with one."""
    try:
        for _ in csv_records(io.StringIO(sample, newline=""), delimiter, "standard"):
            pass
    except csv.Error as error:
        return "unexpected end" in str(error) and len(sample) > SAMPLE // 2  # cut within a field
    return True


def _records(sample: str, delimiter: str, quoting: Quoting) -> Iterator[list[str]]:
    """The rows of a sample without blank lines; lenient about quotation marks."""
    text = io.StringIO(sample, newline="")
    return filter(None, csv_records(text, delimiter, quoting, strict=False))


def _has_header(rows: Sequence[Sequence[str]], columns: Sequence[str]) -> bool:
    """Whether the first row names columns: short, distinct, no numbers, not repeated below.

    One of `columns` in that row, or one not called column_N, implies a header.
    """
    first, rest = rows[0], rows[1:]
    if set(columns) & set(first) or not all(map(NUMBERED_COLUMN.fullmatch, columns)):
        return True
    filled = [cell for cell in first if cell.strip()]
    if len(set(filled)) < 2 or not all(map(_is_name, filled)):
        return False
    if not rest:
        return not columns
    columns_below = list(zip(*(row for row in rest if len(row) == len(first)), strict=True))
    return not any(
        below.count(name) > 1
        for name, below in zip(first, columns_below, strict=False)
        if name.strip()
    )


def _is_name(cell: str) -> bool:
    short = len(cell) <= LONGEST_NAME and len(cell.split()) <= MOST_WORDS
    return short and DECIMAL_NUMBER.fullmatch(cell.strip()) is None and "\n" not in cell


def _column_names(header: Sequence[str]) -> tuple[str, ...]:
    """A distinct name for each column: column_N for blank names, a number behind repeated ones."""
    names: list[str] = []
    for position, name in enumerate(header, start=1):
        given = name if name.strip() else f"column_{position}"
        new, repeat = given, 2
        while new in names:
            new, repeat = f"{given}_{repeat}", repeat + 1
        names.append(new)
    return tuple(names)
