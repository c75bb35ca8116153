"""Write rows with their predictions as csv, tsv, JSON Lines or Parquet."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, Protocol, TextIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from factory.data.formats import DataFile, parquet_module
from factory.data.reading import Row
from factory.errors import PredictError
from factory.predict.rows import STANDARD_STREAM, row_values
from serving.bundle import Manifest
from serving.predictor import sigmoid, softmax

OutputFormat = Literal["csv", "tsv", "jsonl", "parquet"]
LIST_SEPARATOR = ","
# Rows of one row group: large enough to compress, small enough to hold.
ROW_GROUP = 32_768
_ENDINGS: dict[str, OutputFormat] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file to write; `-` is standard output, in JSON Lines."""

    path: Path
    format: OutputFormat
    gzipped: bool = False

    @property
    def standard(self) -> bool:
        """Whether this is standard output."""
        return self.path == STANDARD_STREAM


def output_file(path: Path) -> OutputFile:
    """Determine the output format from the file name.

    Raises:
        PredictError: the name has an unknown ending.
    """
    if path == STANDARD_STREAM:
        return OutputFile(path, "jsonl")
    gzipped = path.suffix.lower() == ".gz"
    ending = (path.with_suffix("") if gzipped else path).suffix.lower()
    known = _ENDINGS.get(ending)
    if known is None or (gzipped and known == "parquet"):
        raise PredictError(
            f"{path}: unknown format; the name must end in .csv, .tsv, .jsonl (each also with "
            ".gz) or .parquet"
        )
    return OutputFile(path, known, gzipped)


@dataclass(frozen=True, slots=True)
class AnswerColumns:
    """The added columns: a prefix for their names, and whether each label has its own score."""

    manifest: Manifest
    prefix: str = ""
    all_scores: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The added columns, in order."""
        own = {
            "classification": ("label", "score"),
            "multilabel": ("labels",),
            "regression": ("value",),
        }[self.manifest.task]
        each = [f"score_{label}" for label in self.manifest.labels] if self._per_label else []
        return tuple(self.prefix + name for name in (*own, *each))

    @property
    def _per_label(self) -> bool:
        return self.all_scores and self.manifest.task != "regression"

    def values(self, logits: NDArray[np.float32]) -> list[dict[str, Any]]:
        """The values of the added columns, row by row.

        Args:
            logits: (rows, labels).
        """
        labels = self.manifest.labels
        rows: list[list[Any]]
        if self.manifest.task == "regression":
            scores = logits.astype(np.float64)
            rows = scores[:, :1].tolist()
        elif self.manifest.task == "classification":
            scores = softmax(logits)
            best = scores.argmax(axis=1)
            rows = [[labels[i], row[i]] for i, row in zip(best, scores.tolist(), strict=True)]
        else:  # the labels that apply, by descending score, as in the server's responses
            scores = sigmoid(logits)
            order = np.argsort(-scores, axis=1, kind="stable").tolist()
            applies = scores >= np.array(self.manifest.thresholds)
            rows = [
                [[labels[i] for i in ranked if row[i]]]
                for ranked, row in zip(order, applies, strict=True)
            ]
        if self._per_label:
            rows = [old + new for old, new in zip(rows, scores.tolist(), strict=True)]
        return [dict(zip(self.names, row, strict=True)) for row in rows]


class TableWriter(Protocol):
    """Writes rows in order, each with the values of the added columns after its own."""

    def write(self, rows: Sequence[Row], answers: Sequence[dict[str, Any]]) -> None:
        """Append rows."""


@contextlib.contextmanager
def table_writer(
    path: Path, output: OutputFile, source: DataFile, columns: AnswerColumns
) -> Iterator[TableWriter]:
    """Write a new file at `path`, in the format of `output`; it is complete after the block.

    Raises:
        PredictError: values that the format cannot hold.
        MissingDependencyError: Parquet without pyarrow.
    """
    if output.format == "parquet":
        writer = _ParquetWriter(path, source, columns)
        with contextlib.closing(writer):
            yield writer
        return
    with _create_bytes(path, output) as stream:
        if output.format == "jsonl":
            yield _JsonWriter(stream, source)
            return
        text = io.TextIOWrapper(stream, "utf-8", newline="")
        yield _DelimitedWriter(text, output, source, columns)
        text.flush()
        text.detach()


class _JsonWriter:
    def __init__(self, stream: IO[bytes], source: DataFile) -> None:
        self._stream = stream
        self._source = source

    def write(self, rows: Sequence[Row], answers: Sequence[dict[str, Any]]) -> None:
        for row, answer in zip(rows, answers, strict=True):
            if self._source.format.kind == "jsonl":  # the original line up to its closing brace
                line = row.source[:-1].rstrip() + b"," + msgspec.json.encode(answer)[1:]
            else:
                line = msgspec.json.encode(row_values(self._source, row) | answer)
            self._stream.write(line + b"\n")


class _DelimitedWriter:
    def __init__(
        self, text: io.TextIOWrapper, output: OutputFile, source: DataFile, columns: AnswerColumns
    ) -> None:
        self._format = output.format
        self._source = source
        self._added = columns.names
        self._columns: list[str] = []
        self._writer: Any = csv.writer(_LineFeeds(text), lineterminator="\r\n")
        if output.format == "tsv":
            self._writer = csv.writer(
                text, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None
            )

    def write(self, rows: Sequence[Row], answers: Sequence[dict[str, Any]]) -> None:
        for row, answer in zip(rows, answers, strict=True):
            if not self._columns:
                self._columns = [*(self._source.columns or row.values), *self._added]
                self._writer.writerow(self._columns)
            values = row_values(self._source, row) | answer
            cells = [_cell(values.get(name)) for name in self._columns]
            if self._format == "tsv" and any(set(cell) & set("\t\r\n") for cell in cells):
                raise PredictError(
                    f"row {row.number} has a tab or a line end inside a cell, which tsv cannot "
                    "hold; write csv"
                )
            self._writer.writerow(cells)


class _LineFeeds:
    """Ends lines with a line feed; as its own terminator, csv would not quote carriage returns."""

    def __init__(self, text: TextIO) -> None:
        self._text = text

    def write(self, line: str) -> None:
        self._text.write(line.removesuffix("\r\n") + "\n")


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return LIST_SEPARATOR.join(value)
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False, default=str).strip('"')


class _ParquetWriter:
    def __init__(self, path: Path, source: DataFile, columns: AnswerColumns) -> None:
        self._module = parquet_module()
        self._path = path
        self._source = source
        self._added = columns.names
        self._writer: Any = None
        self._tables: list[Any] = []

    def write(self, rows: Sequence[Row], answers: Sequence[dict[str, Any]]) -> None:
        if not rows:
            return
        if self._writer is None:
            schema = self._schema(rows, answers[0])
            self._writer = self._module.ParquetWriter(self._path, schema)
        self._tables.append(self._table(rows, answers))
        if sum(map(len, self._tables)) >= ROW_GROUP:
            self._write_group()

    def close(self) -> None:
        """Write the buffered rows and the end of the file."""
        if self._writer is not None:
            self._write_group()
            self._writer.close()

    def _write_group(self) -> None:
        import pyarrow

        if self._tables:
            self._writer.write_table(pyarrow.concat_tables(self._tables))
        self._tables = []

    def _schema(self, rows: Sequence[Row], answer: dict[str, Any]) -> Any:
        """The input's own types, for JSON inferred from the first rows; and the added columns."""
        import pyarrow

        string = pyarrow.string()
        if self._source.format.kind == "parquet":
            schema = rows[0].source[0].schema
        elif self._source.format.kind == "delimited":
            schema = pyarrow.schema([(name, string) for name in self._source.columns])
        else:
            names = list(rows[0].values)
            found = pyarrow.Table.from_pylist(
                [{name: row.values.get(name) for name in names} for row in rows]
            ).schema
            schema = pyarrow.schema(
                [(f.name, string if pyarrow.types.is_null(f.type) else f.type) for f in found]
            )
        for name, value in answer.items():
            kind = pyarrow.list_(string) if isinstance(value, list) else string
            kind = pyarrow.float64() if isinstance(value, float) else kind
            schema = schema.append(pyarrow.field(name, kind))
        return schema

    def _table(self, rows: Sequence[Row], answers: Sequence[dict[str, Any]]) -> Any:
        import pyarrow

        schema = self._writer.schema
        fields, width = list(schema), len(schema) - len(self._added)
        if self._source.format.kind == "parquet":
            table = _gathered(rows)
        else:
            old = pyarrow.schema(fields[:width], schema.metadata)
            try:
                table = pyarrow.Table.from_pylist([row.values for row in rows], schema=old)
            except pyarrow.ArrowException as error:
                raise PredictError(
                    f"rows {rows[0].number} to {rows[-1].number} have values of another type than "
                    f"the first ({error}); write jsonl, which keeps every value"
                ) from error
        added = pyarrow.Table.from_pylist(list(answers), schema=pyarrow.schema(fields[width:]))
        for field, column in zip(fields[width:], added.columns, strict=True):
            table = table.append_column(field, column)
        return table.cast(schema)


def _gathered(rows: Sequence[Row]) -> Any:
    """The rows of record batches as one table, with the original values."""
    import pyarrow

    pieces: list[tuple[Any, list[int]]] = []
    for row in rows:
        batch, place = row.source
        if not pieces or pieces[-1][0] is not batch:
            pieces.append((batch, []))
        pieces[-1][1].append(place)
    return pyarrow.Table.from_batches(
        [batch.take(pyarrow.array(places)) for batch, places in pieces]
    )


@contextlib.contextmanager
def _create_bytes(path: Path, file: OutputFile) -> Iterator[Any]:
    """Create the file at `path`, optionally gzipped; the same content gives the same bytes."""
    if file.standard:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with path.open("wb") as plain:
        if file.gzipped:
            # without name and time, which would differ between runs
            with gzip.GzipFile("", "wb", 6, plain, mtime=0) as packed:
                yield packed
        else:
            yield plain
