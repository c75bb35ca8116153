"""Parts to shards: what occurs twice or is too much of a class is dropped, memory stays flat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.augment import draws
from factory.augment.parts import (
    KEY_COLUMN,
    part_file,
    part_tables,
    read_counts,
    row_key,
    write_table,
)
from factory.data.dataset import Split
from factory.recipe.augment import AugmentSettings

# Variants of a shard; so many wait in memory before they are written.
SHARD_ROWS = 2**14


def merge_parts(
    directory: Path, parts: int, train: Split, settings: AugmentSettings
) -> tuple[list[int], Counter[str]]:
    """Write the shards of all parts, in the order of rows and copies.

    A variant equal to a training row or to an earlier variant is dropped. For that 8 bytes per
    variant are held at once, no text is.

    Returns:
        Rows of each shard, and the counts of the parts with those of the merge added.
    """
    counts = _counts(directory, parts)
    kept = _Distinct(directory, parts, train)
    limits = _limits(directory, parts, train, settings, kept)
    shards = []
    written = distinct = 0

    def tables() -> Iterator[Any]:
        nonlocal distinct
        everything = part_tables(directory, parts, None)
        for table, keep in zip(everything, kept.masks(), strict=True):
            distinct += int(keep.sum())
            if limits is not None:
                keep = keep & limits.within(table)
            yield table.drop_columns([KEY_COLUMN]).filter(keep).replace_schema_metadata(None)

    for number, shard in enumerate(_in_shards(tables())):
        write_table(shard, shard_file(directory, number))
        shards.append(len(shard))
        written += len(shard)
    counts["duplicate"] += kept.total - distinct
    counts["cap"] = distinct - written
    counts["variants"] = written
    return shards, counts


def shard_file(directory: Path, number: int) -> Path:
    """The file of one shard, counted from 0."""
    return directory / f"variants-{number:05d}.parquet"


class _Distinct:
    """Which variants come first of their kind and are no training row.

    All keys are sorted once to find those that occur more than once; only these are looked up
    when the parts are gone through in order.
    """

    def __init__(self, directory: Path, parts: int, train: Split) -> None:
        self._directory = directory
        self._parts = parts
        sizes = [read_counts(part_file(directory, number))[0] for number in range(parts)]
        self.total = sum(sizes)
        keys = np.empty(self.total, dtype=np.uint64)
        filled = 0
        for size, part in zip(sizes, self._keys(), strict=True):
            keys[filled : filled + size] = part
            filled += size
        keys.sort()
        self._repeated = np.unique(keys[1:][keys[1:] == keys[:-1]])
        self._originals = _row_keys(train)

    def masks(self) -> Iterator[NDArray[np.bool_]]:
        """For each part which of its variants stay: (variants,)."""
        met = np.zeros(len(self._repeated), dtype=np.bool_)
        for keys in self._keys():
            keep = ~_is_in(self._originals, keys)
            again = np.flatnonzero(_is_in(self._repeated, keys))
            places = np.searchsorted(self._repeated, keys[again])
            first = np.zeros(len(again), dtype=np.bool_)
            first[np.unique(places, return_index=True)[1]] = True
            keep[again] &= first & ~met[places]
            met[places] = True
            yield keep

    def _keys(self) -> Iterator[NDArray[np.uint64]]:
        for table in part_tables(self._directory, self._parts, [KEY_COLUMN]):
            yield table.column(KEY_COLUMN).to_numpy()


class _ClassLimits:
    """Of each class the variants with the lowest draws, as many as may stay."""

    def __init__(self, classes: NDArray[np.int64], most: int, seed: int) -> None:
        self._classes = classes
        self._most = most
        self._seed = seed
        nothing = np.empty(0, dtype=np.uint64)
        self._lowest = [nothing for _ in range(int(classes.max()) + 1)]

    def add(self, table: Any, keep: NDArray[np.bool_]) -> None:
        """Count some variants in."""
        classes, bits = self._draws(table)
        for number in np.unique(classes[keep]).tolist():
            own = bits[keep & (classes == number)]
            self._lowest[number] = _lowest(np.append(self._lowest[number], own), self._most)

    def within(self, table: Any) -> NDArray[np.bool_]:
        """Which variants are among those counted in that stay: (variants,)."""
        limits = np.array(
            [bits.max() if len(bits) else np.uint64(0) for bits in self._lowest], dtype=np.uint64
        )
        classes, bits = self._draws(table)
        result: NDArray[np.bool_] = bits <= limits[classes]
        return result

    def _draws(self, table: Any) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        rows = table.column("source_row").to_numpy()
        copies = table.column("copy").to_numpy()
        return self._classes[rows], draws.keys(self._seed, draws.CAP, rows, copies)


def _limits(
    directory: Path, parts: int, train: Split, settings: AugmentSettings, kept: _Distinct
) -> _ClassLimits | None:
    most = settings.max_rows_per_class
    if most is None:
        return None
    limits = _ClassLimits(_classes(train), most, settings.seed)
    tables = part_tables(directory, parts, ["source_row", "copy"])
    for table, keep in zip(tables, kept.masks(), strict=True):
        limits.add(table, keep)
    return limits


def _classes(train: Split) -> NDArray[np.int64]:
    """Number of each row's class, or of its set of labels: (rows,)."""
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(target, len(numbers)) for target in train.targets])


def _lowest(bits: NDArray[np.uint64], most: int) -> NDArray[np.uint64]:
    return bits if len(bits) <= most else np.partition(bits, most - 1)[:most]


def _row_keys(train: Split) -> NDArray[np.uint64]:
    columns = [train.texts] if train.text_pairs is None else [train.texts, train.text_pairs]
    rows = zip(*columns, strict=True)
    keys = np.fromiter((row_key(row) for row in rows), dtype=np.uint64, count=len(train))
    keys.sort()
    return keys


def _is_in(ordered: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    if not len(ordered):
        return np.zeros(len(keys), dtype=np.bool_)
    places = np.searchsorted(ordered, keys).clip(max=len(ordered) - 1)
    result: NDArray[np.bool_] = ordered[places] == keys
    return result


def _counts(directory: Path, parts: int) -> Counter[str]:
    total: Counter[str] = Counter()
    for number in range(parts):
        total += read_counts(part_file(directory, number))[1]
    return total


def _in_shards(tables: Iterable[Any]) -> Iterator[Any]:
    """Tables of `SHARD_ROWS` rows, the last one perhaps of fewer, from tables of any size."""
    import pyarrow

    waiting: list[Any] = []
    for table in tables:
        waiting.append(table)
        while sum(map(len, waiting)) >= SHARD_ROWS:
            joined = pyarrow.concat_tables(waiting)
            yield joined.slice(0, SHARD_ROWS).combine_chunks()
            waiting = [joined.slice(SHARD_ROWS).combine_chunks()]
    if sum(map(len, waiting)):
        yield pyarrow.concat_tables(waiting).combine_chunks()
