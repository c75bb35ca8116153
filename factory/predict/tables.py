"""Writing rows with their answers: csv and tsv, JSON lines, Parquet."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, TextIO

import msgspec

from factory.errors import PredictError
from factory.predict.answers import AnswerColumns
from factory.predict.files import DataFile, create_bytes, parquet_module
from factory.predict.rows import Row, columns_of, row_values

LIST_SEPARATOR = ","
# Rows of one row group: large enough to compress, small enough to hold.
ROW_GROUP = 32_768


class TableWriter(Protocol):
    """Whatever takes rows with the answers to them."""

    def write(self, rows: Sequence[Row], answers: Sequence[dict[str, Any]]) -> None:
        """Write rows in order, each with its answer's columns behind its own."""


@contextlib.contextmanager
def table_writer(
    path: Path, output: DataFile, source: DataFile, columns: AnswerColumns
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
    with create_bytes(path, output) as stream:
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
        self._columns: list[str] | None = None

    def write(self, rows: Sequence[Row], answers: Sequence[dict[str, Any]]) -> None:
        for row, answer in zip(rows, answers, strict=True):
            self._stream.write(self._line(row, answer) + b"\n")

    def _line(self, row: Row, answer: dict[str, Any]) -> bytes:
        if self._source.format == "jsonl":  # the line as it came, its closing brace moved
            line: bytes = row.content[0]
            return line[:-1].rstrip() + b"," + msgspec.json.encode(answer)[1:]
        if self._columns is None:
            self._columns = columns_of(self._source, row)
        return msgspec.json.encode(row_values(self._source, row, self._columns) | answer)


class _DelimitedWriter:
    def __init__(
        self, text: io.TextIOWrapper, output: DataFile, source: DataFile, columns: AnswerColumns
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
            values = row_values(self._source, row, self._columns) | answer
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

        if self._source.format == "parquet":
            return rows[0].content[0].schema
        if self._source.format != "jsonl":
            return pyarrow.schema([(name, pyarrow.string()) for name in self._columns])
        values = [row_values(self._source, row, self._columns) for row in rows]
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
        if self._source.format == "parquet":
            table = _gathered(rows)
        else:
            values = [row_values(self._source, row, self._columns) for row in rows]
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
        batch, place = row.content
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
