"""Which file is read or written, by its name: format, compression, and its bytes as a stream."""

from __future__ import annotations

import contextlib
import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from factory.errors import MissingDependencyError, PredictError

FileFormat = Literal["csv", "tsv", "jsonl", "parquet"]
STANDARD_STREAM = Path("-")
_ENDINGS: dict[str, FileFormat] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file to read or to write; `-` is standard input or output, in JSON lines."""

    path: Path
    format: FileFormat
    gzipped: bool = False

    @property
    def standard(self) -> bool:
        """Whether this is a standard stream."""
        return self.path == STANDARD_STREAM


def data_file(path: Path) -> DataFile:
    """The format that a name tells.

    Raises:
        PredictError: it tells none that is known.
    """
    if path == STANDARD_STREAM:
        return DataFile(path, "jsonl")
    gzipped = path.suffix.lower() == ".gz"
    ending = (path.with_suffix("") if gzipped else path).suffix.lower()
    known = _ENDINGS.get(ending)
    if known is None or (gzipped and known == "parquet"):
        raise PredictError(
            f"{path}: the name tells no format; end it in .csv, .tsv, .jsonl (each also with .gz) "
            "or .parquet"
        )
    return DataFile(path, known, gzipped)


@contextlib.contextmanager
def open_bytes(file: DataFile) -> Iterator[Any]:
    """The bytes of a text file, unpacked.

    Raises:
        PredictError: it is not the gzip file its name says.
    """
    if file.standard:
        yield sys.stdin.buffer
        return
    try:
        if file.gzipped:
            with gzip.open(file.path, "rb") as unpacked:
                yield unpacked
        else:
            with file.path.open("rb") as plain:
                yield plain
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise PredictError(
            f"{file.path}: cannot be unpacked ({error}); pack it again, or name it without .gz"
        ) from error


@contextlib.contextmanager
def open_text(file: DataFile) -> Iterator[TextIO]:
    """The text of a file; what is not UTF-8 in it becomes lone surrogates, to be found later."""
    with open_bytes(file) as stream:
        text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
        try:
            yield text
        finally:
            text.detach()


@contextlib.contextmanager
def create_bytes(path: Path, file: DataFile) -> Iterator[Any]:
    """A new file at `path` in the format of `file`; the same content gives the same bytes."""
    if file.standard:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with path.open("wb") as plain:
        if file.gzipped:
            # without a name and a time, which would differ from run to run
            with gzip.GzipFile("", "wb", 6, plain, mtime=0) as packed:
                yield packed
        else:
            yield plain


def parquet_module() -> Any:
    """pyarrow.parquet.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError(
            "pyarrow is not installed, which parquet needs; run: pip install 'pyarrow>=15,<27'"
        ) from error
    return pyarrow.parquet
