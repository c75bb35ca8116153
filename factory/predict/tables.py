"""Writing rows with their answers: csv and tsv, JSON Lines, Parquet."""

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
from factory.predict.rows import STANDARD_STREAM, columns_of, row_values
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
    """The format that a name asks for.

    Raises:
        PredictError: the name's ending is not known.
    """
    if path == STANDARD_STREAM:
        return OutputFile(path, "jsonl")
    gzipped = path.suffix.lower() == ".gz"
    ending = (path.with_suffix("") if gzipped else path).suffix.lower()
    known = _ENDINGS.get(ending)
    if known is None or (gzipped and known == "parquet"):
        raise PredictError(
            f"{path}: the name gives no format; end it in .csv, .tsv, .jsonl (each also with .gz) "
            "or .parquet"
        )
    return OutputFile(path, known, gzipped)


@dataclass(frozen=True, slots=True)
class AnswerColumns:
    """How answers are named: a prefix for every column, and whether each label has its own."""

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
        return tuple(self.prefix + name for name in (*own, *self._per_label()))

    def _per_label(self) -> tuple[str, ...]:
        wanted = self.all_scores and self.manifest.task != "regression"
        return tuple(f"score_{label}" for label in self.manifest.labels) if wanted else ()

    def values(self, logits: NDArray[np.float32]) -> list[dict[str, Any]]:
        """The values of the added columns, row by row.

        Args:
            logits: (rows, labels).
        """
        labels = self.manifest.labels
        rows: list[list[Any]]
        scores = logits.astype(np.float64)
        if self.manifest.task == "regression":
            rows = [[value] for value in scores[:, 0].tolist()]
        elif self.manifest.task == "classification":
            scores = softmax(logits)
            best = scores.argmax(axis=1).tolist()
            rows = [
                [labels[place], row[place]]
                for place, row in zip(best, scores.tolist(), strict=True)
            ]
        else:
            scores = sigmoid(logits)
            rows = [[self._labels(row)] for row in scores]
        if self._per_label():
            rows = [old + new for old, new in zip(rows, scores.tolist(), strict=True)]
        return [dict(zip(self.names, row, strict=True)) for row in rows]

    def _labels(self, scores: NDArray[np.float64]) -> list[str]:
        """The labels that apply, from high to low score, as the server lists them."""
        order = np.argsort(-scores, kind="stable").tolist()
        applies = scores >= np.array(self.manifest.thresholds)
        return [self.manifest.labels[place] for place in order if applies[place]]


class TableWriter(Protocol):
    """Whatever takes rows with the answers to them."""

    def write(self, rows: Sequence[Row], answers: Sequence[dict[str, Any]]) -> None:
        """Write rows in order, each with its answer's columns behind its own."""


@contextlib.contextmanager
def table_writer(
    path: Path, output: OutputFile, source: DataFile, columns: AnswerColumns
) -> Iterator[TableWriter]:
    """Writes a new file at `path`, in the format of `output`; the file is whole at the end.

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
            self._stream.write(self._line(row, answer) + b"\n")

    def _line(self, row: Row, answer: dict[str, Any]) -> bytes:
        if self._source.format.kind == "jsonl":  # the line as it came, its closing brace moved
            line: bytes = row.source
            return line[:-1].rstrip() + b"," + msgspec.json.encode(answer)[1:]
        return msgspec.json.encode(row_values(self._source, row) | answer)


class _DelimitedWriter:
    def __init__(
        self, text: io.TextIOWrapper, output: OutputFile, source: DataFile, columns: AnswerColumns
    ) -> None:
        self._format = output.format
        self._source = source
        self._answers = columns.names
        self._columns: list[str] | None = None
        self._writer: Any = csv.writer(_LineFeeds(text), lineterminator="\r\n")
        if output.format == "tsv":
            self._writer = csv.writer(
                text, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None
            )

    def write(self, rows: Sequence[Row], answers: Sequence[dict[str, Any]]) -> None:
        for row, answer in zip(rows, answers, strict=True):
            if self._columns is None:
                self._columns = columns_of(self._source, row)
                self._writer.writerow([*self._columns, *self._answers])
            values = row_values(self._source, row) | answer
            cells = [_cell(values.get(name)) for name in (*self._columns, *self._answers)]
            if self._format == "tsv" and any(set(cell) & set("\t\r\n") for cell in cells):
                raise PredictError(
                    f"row {row.number} has a tab or a line end inside a cell, which tsv cannot "
                    "hold; write csv"
                )
            self._writer.writerow(cells)


class _LineFeeds:
    """Ends lines in a line feed; asked for that, Python's writer would not quote a lone return."""

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
        self._answers = columns
        self._columns: list[str] = []
        self._writer: Any = None
        self._tables: list[Any] = []
        self._waiting = 0

    def write(self, rows: Sequence[Row], answers: Sequence[dict[str, Any]]) -> None:
        if not rows:
            return
        import pyarrow

        if self._writer is None:
            self._columns = columns_of(self._source, rows[0])
            schema = self._schema(rows)
            for name in self._answers.names:
                schema = schema.append(pyarrow.field(name, _answer_type(answers[0][name])))
            self._writer = self._module.ParquetWriter(self._path, schema)
        self._tables.append(self._table(rows, answers))
        self._waiting += len(rows)
        if self._waiting >= ROW_GROUP:
            self._write_group()

    def close(self) -> None:
        """Write what waits, and the end of the file."""
        if self._writer is not None:
            self._write_group()
            self._writer.close()

    def _write_group(self) -> None:
        import pyarrow

        if self._tables:
            self._writer.write_table(pyarrow.concat_tables(self._tables))
        self._tables, self._waiting = [], 0

    def _schema(self, rows: Sequence[Row]) -> Any:
        """The input's own types; of JSON, those of the first rows."""
        import pyarrow

        if self._source.format.kind == "parquet":
            return rows[0].source[0].schema
        if self._source.format.kind == "delimited":
            return pyarrow.schema([(name, pyarrow.string()) for name in self._columns])
        values = [row_values(self._source, row) for row in rows]
        found = pyarrow.Table.from_pylist(
            [{name: row.get(name) for name in self._columns} for row in values]
        ).schema
        return pyarrow.schema(
            [
                (field.name, pyarrow.string() if pyarrow.types.is_null(field.type) else field.type)
                for field in found
            ]
        )

    def _table(self, rows: Sequence[Row], answers: Sequence[dict[str, Any]]) -> Any:
        import pyarrow

        schema = self._writer.schema
        old = pyarrow.schema([schema.field(name) for name in self._columns], schema.metadata)
        new = pyarrow.schema([schema.field(name) for name in self._answers.names])
        if self._source.format.kind == "parquet":
            table = _gathered(rows)
        else:
            values = [row_values(self._source, row) for row in rows]
            try:
                table = pyarrow.Table.from_pylist(values, schema=old)
            except pyarrow.ArrowException as error:
                raise PredictError(
                    f"rows {rows[0].number} to {rows[-1].number} have values of another type than "
                    f"the first ({error}); write jsonl, which keeps each as it is"
                ) from error
        added = pyarrow.Table.from_pylist(list(answers), schema=new)
        for name in new.names:
            table = table.append_column(new.field(name), added.column(name))
        return table.cast(schema)


def _gathered(rows: Sequence[Row]) -> Any:
    """Rows of record batches as one table, with the values as they were read."""
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


def _answer_type(value: Any) -> Any:
    import pyarrow

    if isinstance(value, list):
        return pyarrow.list_(pyarrow.string())
    return pyarrow.string() if isinstance(value, str) else pyarrow.float64()


@contextlib.contextmanager
def _create_bytes(path: Path, file: OutputFile) -> Iterator[Any]:
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
