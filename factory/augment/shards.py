"""Augmented examples on disk: parts that survive a kill, merged into shards without duplicates."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from factory.augment import keyed_rng
from factory.augment.rows import AugmentedExample
from factory.data.dataset import Split
from factory.recipe.augment import AugmentSettings
from factory.store import atomic_write, read_json

if TYPE_CHECKING:
    import pyarrow

INDEX_NAME = "index.json"
# Source rows of a part. More would fill the batches of a GPU better, but a kill loses the part in
# progress, and a CPU needs a minute or two for this many rows of long texts.
PART_ROWS = 256
# Examples of a shard, which are held in memory until they are written.
SHARD_ROWS = 2**14
_KEY = "key"


def parts_of(rows: int) -> list[range]:
    """The rows of each part of a train split with `rows` rows."""
    return [range(start, min(start + PART_ROWS, rows)) for start in range(0, rows, PART_ROWS)]


def part_file(directory: Path, number: int) -> Path:
    """The file of one part, counted from 0; parts are removed once they are merged."""
    return directory / "parts" / f"part-{number:06d}.parquet"


def write_part(
    file: Path, examples: Sequence[AugmentedExample], counts: Counter[str], pairs: bool
) -> None:
    """Write a part atomically."""
    import pyarrow

    ranges = pyarrow.list_(pyarrow.list_(pyarrow.int32()))
    columns: dict[str, Any] = {}
    for side, suffix in enumerate(("", "_pair") if pairs else ("",)):
        texts = [example.texts[side] for example in examples]
        changed = [example.changed[side] for example in examples]
        columns[f"text{suffix}"] = pyarrow.array(texts, pyarrow.string())
        columns[f"changed{suffix}"] = pyarrow.array(changed, ranges)
    columns["source_row"] = pyarrow.array([e.source_row for e in examples], pyarrow.int32())
    columns["copy"] = pyarrow.array([e.copy for e in examples], pyarrow.int32())
    columns[_KEY] = pyarrow.array([_row_key(e.texts) for e in examples], pyarrow.uint64())
    metadata = {"counts": json.dumps(counts, sort_keys=True)}
    _write_table(pyarrow.table(columns).replace_schema_metadata(metadata), file)


def merge_parts(
    directory: Path, parts: int, train: Split, settings: AugmentSettings
) -> tuple[list[int], Counter[str]]:
    """Write the shards of all parts, in the order of rows and copies.

    Examples equal to a training row or to an earlier example are dropped, then those over
    `max_rows_per_class`. Only keys of the examples are held in memory, no texts.

    Returns:
        Number of rows of each shard, and the counts of the parts with those of the merge added.
    """
    import pyarrow

    tables = [
        _read(part_file(directory, number), [_KEY, "source_row", "copy"]) for number in range(parts)
    ]
    counts: Counter[str] = Counter()
    for table in tables:
        counts += Counter(json.loads(table.schema.metadata[b"counts"]))
    columns = pyarrow.concat_tables(tables)
    keep = _distinct(columns.column(_KEY).to_numpy(), train)
    distinct = int(keep.sum())
    if settings.max_rows_per_class is not None:
        rows, copies = (columns.column(name).to_numpy() for name in ("source_row", "copy"))
        keep &= _within_limit(keep, rows, copies, train, settings.max_rows_per_class, settings.seed)
    shards = []
    for number, shard in enumerate(_shards(directory, parts, keep)):
        _write_table(shard, _shard_file(directory, number))
        shards.append(len(shard))
    counts["examples"] = sum(shards)
    counts["duplicate"] += len(columns) - distinct
    counts["cap"] = distinct - counts["examples"]
    return shards, counts


def read_augmented(
    directory: Path,
) -> tuple[list[str] | list[tuple[str, str]], NDArray[np.int32]]:
    """Read the examples that the augment stage wrote.

    Returns:
        Texts or pairs as a tokenizer takes them, and (examples,) the position in train of each
        example's row.
    """
    index = read_json(directory / INDEX_NAME)
    names = ["text", "text_pair"] if index["pairs"] else ["text"]
    columns: list[list[str]] = [[] for _ in names]
    source_rows = [np.empty(0, dtype=np.int32)]
    for number in range(len(index["shards"])):
        table = _read(_shard_file(directory, number), [*names, "source_row"])
        for column, name in zip(columns, names, strict=True):
            column += table.column(name).to_pylist()
        source_rows.append(table.column("source_row").to_numpy())
    rows = np.concatenate(source_rows)
    return (list(zip(*columns, strict=True)) if index["pairs"] else columns[0]), rows


def _distinct(keys: NDArray[np.uint64], train: Split) -> NDArray[np.bool_]:
    """Which examples are not training rows and have no equal before them: (examples,)."""
    columns = [train.texts] if train.text_pairs is None else [train.texts, train.text_pairs]
    originals = np.array([_row_key(row) for row in zip(*columns, strict=True)], dtype=np.uint64)
    first = np.zeros(len(keys), dtype=np.bool_)
    first[np.unique(keys, return_index=True)[1]] = True
    distinct: NDArray[np.bool_] = first & ~np.isin(keys, originals)
    return distinct


def _within_limit(
    distinct: NDArray[np.bool_],
    rows: NDArray[np.int32],
    copies: NDArray[np.int32],
    train: Split,
    most: int,
    seed: int,
) -> NDArray[np.bool_]:
    """The `most` distinct examples of each class, or set of labels, with the lowest draws."""
    numbers: dict[Any, int] = {}
    class_of_row = np.array([numbers.setdefault(target, len(numbers)) for target in train.targets])
    found = np.flatnonzero(distinct)
    classes = class_of_row[rows[found]]
    draws = keyed_rng.random_bits(seed, keyed_rng.CAP, rows[found], copies[found])
    order = np.lexsort((draws, classes))
    ordered = classes[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    within = np.zeros(len(distinct), dtype=np.bool_)
    within[found[order[rank < most]]] = True
    return within


def _shards(directory: Path, parts: int, keep: NDArray[np.bool_]) -> Iterator[pyarrow.Table]:
    """The kept examples in tables of `SHARD_ROWS` rows; the last one may be shorter."""
    import pyarrow

    waiting: list[pyarrow.Table] = []
    begin = 0
    for number in range(parts):
        table = _read(part_file(directory, number)).drop_columns([_KEY])
        mask = keep[begin : begin + len(table)]
        begin += len(table)
        waiting.append(table.filter(mask).replace_schema_metadata(None))
        while sum(map(len, waiting)) >= SHARD_ROWS:
            joined = pyarrow.concat_tables(waiting)
            yield joined.slice(0, SHARD_ROWS).combine_chunks()
            waiting = [joined.slice(SHARD_ROWS).combine_chunks()]
    if sum(map(len, waiting)):
        yield pyarrow.concat_tables(waiting).combine_chunks()


def _shard_file(directory: Path, number: int) -> Path:
    return directory / f"augmented-{number:05d}.parquet"


def _read(file: Path, columns: list[str] | None = None) -> pyarrow.Table:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(file) as opened:
        return opened.read(columns=columns)


def _write_table(table: pyarrow.Table, file: Path) -> None:
    import pyarrow.parquet

    with atomic_write(file) as temporary:
        pyarrow.parquet.write_table(table, temporary, compression="zstd")


def _row_key(texts: Sequence[str]) -> int:
    """A 64-bit hash of a row; among 10 million rows, two collide with probability 3e-6."""
    return keyed_rng.text_key("".join(f"{len(text)} {text}" for text in texts))
