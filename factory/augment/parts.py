"""Variants of a few source rows as one file: written at once, found again after a kill."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factory.augment.draws import text_key
from factory.augment.variants import Made

if TYPE_CHECKING:
    import pyarrow

# Source rows of a part. More would fill the batches of a GPU better, but each kill loses the part
# in work, and a CPU takes a minute or two for this many rows of long texts.
PART_ROWS = 256
KEY_COLUMN = "key"
_PARTS = "parts"
_COUNTS = b"counts"


def parts_of(rows: int) -> list[range]:
    """The rows of each part of a train split with `rows` rows."""
    return [range(start, min(start + PART_ROWS, rows)) for start in range(0, rows, PART_ROWS)]


def parts_directory(directory: Path) -> Path:
    """Where the parts stand until they are merged."""
    return directory / _PARTS


def part_file(directory: Path, number: int) -> Path:
    """The file of one part, counted from 0."""
    return parts_directory(directory) / f"part-{number:06d}.parquet"


def write_part(file: Path, made: Made, pairs: bool) -> None:
    """Write a part aside and rename it, so that a part that exists is whole."""
    counts = {_COUNTS: json.dumps(made.counts, sort_keys=True).encode()}
    write_table(_table(made, pairs).replace_schema_metadata(counts), file)


def write_table(table: pyarrow.Table, file: Path) -> None:
    """Write a Parquet file aside and rename it."""
    import pyarrow.parquet

    temporary = file.with_name(f".{file.name}.tmp")
    pyarrow.parquet.write_table(table, temporary, compression="zstd")
    temporary.replace(file)


def read_counts(file: Path) -> tuple[int, Counter[str]]:
    """How many variants a part holds, and its counts; reads only the file's end."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(file) as part:
        return part.metadata.num_rows, Counter(json.loads(part.schema_arrow.metadata[_COUNTS]))


def read_columns(file: Path, columns: list[str] | None = None) -> pyarrow.Table:
    """Some columns of a part or a shard, or all."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(file) as part:
        return part.read(columns=columns)


def _table(made: Made, pairs: bool) -> pyarrow.Table:
    import pyarrow

    variants = made.variants
    ranges = pyarrow.list_(pyarrow.list_(pyarrow.int32()))
    columns: dict[str, Any] = {}
    for side, suffix in enumerate(("", "_pair") if pairs else ("",)):
        texts = [variant.texts[side] for variant in variants]
        changed = [variant.changed[side] for variant in variants]
        columns[f"text{suffix}"] = pyarrow.array(texts, pyarrow.string())
        columns[f"changed{suffix}"] = pyarrow.array(changed, ranges)
    columns["source_row"] = pyarrow.array([v.source_row for v in variants], pyarrow.int32())
    columns["copy"] = pyarrow.array([v.copy for v in variants], pyarrow.int32())
    keys = [row_key(variant.texts) for variant in variants]
    columns[KEY_COLUMN] = pyarrow.array(keys, pyarrow.uint64())
    return pyarrow.table(columns)


def row_key(texts: tuple[str, ...]) -> int:
    """64 bits that tell rows apart; of 10 million two different ones agree with chance 3e-6."""
    return text_key("".join(f"{len(text)} {text}" for text in texts))


def part_tables(directory: Path, count: int, columns: list[str] | None) -> Iterator[Any]:
    """The parts one after the other."""
    for number in range(count):
        yield read_columns(part_file(directory, number), columns)
