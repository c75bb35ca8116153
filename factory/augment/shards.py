"""Augmented examples on disk: parts that survive a kill, merged into shards without duplicates."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from factory.augment import keyed_rng
from factory.augment.examples import RowExamples
from factory.data.dataset import Split
from factory.recipe.augment import AugmentSettings

if TYPE_CHECKING:
    import pyarrow

# Source rows of a part. More would fill the batches of a GPU better, but a kill loses the part in
# progress, and a CPU needs a minute or two for this many rows of long texts.
PART_ROWS = 256
# Examples of a shard, which are held in memory until they are written.
SHARD_ROWS = 2**14
KEY_COLUMN = "key"
_COUNTS = b"counts"


def parts_of(rows: int) -> list[range]:
    """The rows of each part of a train split with `rows` rows."""
    return [range(start, min(start + PART_ROWS, rows)) for start in range(0, rows, PART_ROWS)]


def parts_directory(directory: Path) -> Path:
    """The directory of the parts until they are merged."""
    return directory / "parts"


def part_file(directory: Path, number: int) -> Path:
    """The file of one part, counted from 0."""
    return parts_directory(directory) / f"part-{number:06d}.parquet"


def shard_file(directory: Path, number: int) -> Path:
    """The file of one shard, counted from 0."""
    return directory / f"augmented-{number:05d}.parquet"


def write_part(file: Path, made: RowExamples, pairs: bool) -> None:
    """Write a part atomically."""
    import pyarrow

    examples = made.examples
    ranges = pyarrow.list_(pyarrow.list_(pyarrow.int32()))
    columns: dict[str, Any] = {}
    for side, suffix in enumerate(("", "_pair") if pairs else ("",)):
        texts = [example.texts[side] for example in examples]
        changed = [example.changed[side] for example in examples]
        columns[f"text{suffix}"] = pyarrow.array(texts, pyarrow.string())
        columns[f"changed{suffix}"] = pyarrow.array(changed, ranges)
    columns["source_row"] = pyarrow.array([e.source_row for e in examples], pyarrow.int32())
    columns["copy"] = pyarrow.array([e.copy for e in examples], pyarrow.int32())
    keys = [_row_key(example.texts) for example in examples]
    columns[KEY_COLUMN] = pyarrow.array(keys, pyarrow.uint64())
    counts = {_COUNTS: json.dumps(made.counts, sort_keys=True).encode()}
    _write_table(pyarrow.table(columns).replace_schema_metadata(counts), file)


def read_columns(file: Path, columns: list[str] | None = None) -> pyarrow.Table:
    """Some columns of a part or a shard; None: all."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(file) as part:
        return part.read(columns=columns)


def merge_parts(
    directory: Path, parts: int, train: Split, settings: AugmentSettings
) -> tuple[list[int], Counter[str]]:
    """Write the shards of all parts, in the order of rows and copies.

    Examples equal to a training row or to an earlier example are dropped. For this, 8 bytes per
    example are held in memory, and no texts.

    Returns:
        Number of rows of each shard, and the counts of the parts with those of the merge added.
    """
    sizes, counts = _sizes_and_counts(directory, parts)
    distinct = _Distinct(directory, sizes, train)
    limits = _limits(directory, parts, train, settings, distinct)
    shards = []
    kept = 0

    def tables() -> Iterator[Any]:
        nonlocal kept
        everything = _part_tables(directory, parts, None)
        for table, keep in zip(everything, distinct.masks(), strict=True):
            kept += int(keep.sum())
            if limits is not None:
                keep = keep & limits.within(table)
            yield table.drop_columns([KEY_COLUMN]).filter(keep).replace_schema_metadata(None)

    for number, shard in enumerate(_in_shards(tables())):
        _write_table(shard, shard_file(directory, number))
        shards.append(len(shard))
    counts["examples"] = sum(shards)
    counts["duplicate"] += sum(sizes) - kept
    counts["cap"] = kept - counts["examples"]
    return shards, counts


class _Distinct:
    """Finds examples that are not training rows and have no equal before them.

    All keys are sorted once to find those that occur more than once; only these are looked up
    when the parts are read in order.
    """

    def __init__(self, directory: Path, sizes: list[int], train: Split) -> None:
        self._directory = directory
        self._parts = len(sizes)
        keys = np.empty(sum(sizes), dtype=np.uint64)
        filled = 0
        for size, part in zip(sizes, self._keys(), strict=True):
            keys[filled : filled + size] = part
            filled += size
        keys.sort()
        self._repeated = np.unique(keys[1:][keys[1:] == keys[:-1]])
        columns = [train.texts] if train.text_pairs is None else [train.texts, train.text_pairs]
        rows = zip(*columns, strict=True)
        self._originals = np.fromiter(map(_row_key, rows), dtype=np.uint64, count=len(train))
        self._originals.sort()

    def masks(self) -> Iterator[NDArray[np.bool_]]:
        """For each part, which of its examples are kept: (examples,)."""
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
        for table in _part_tables(self._directory, self._parts, [KEY_COLUMN]):
            yield table.column(KEY_COLUMN).to_numpy()


class _ClassLimits:
    """Keeps of each class the examples with the lowest draws, up to `most`."""

    def __init__(self, classes: NDArray[np.int64], most: int, seed: int) -> None:
        self._classes = classes
        self._most = most
        self._seed = seed
        nothing = np.empty(0, dtype=np.uint64)
        self._lowest = [nothing for _ in range(int(classes.max()) + 1)]

    def add(self, table: Any, keep: NDArray[np.bool_]) -> None:
        """Count some examples in."""
        classes, bits = self._draws(table)
        for number in np.unique(classes[keep]).tolist():
            own = np.append(self._lowest[number], bits[keep & (classes == number)])
            if len(own) > self._most:
                own = np.partition(own, self._most - 1)[: self._most]
            self._lowest[number] = own

    def within(self, table: Any) -> NDArray[np.bool_]:
        """Which of the examples are kept: (examples,)."""
        limits = np.array(
            [bits.max() if len(bits) else np.uint64(0) for bits in self._lowest], dtype=np.uint64
        )
        classes, bits = self._draws(table)
        result: NDArray[np.bool_] = bits <= limits[classes]
        return result

    def _draws(self, table: Any) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        rows = table.column("source_row").to_numpy()
        copies = table.column("copy").to_numpy()
        bits = keyed_rng.random_bits(self._seed, keyed_rng.CAP, rows, copies)
        return self._classes[rows], bits


def _limits(
    directory: Path, parts: int, train: Split, settings: AugmentSettings, distinct: _Distinct
) -> _ClassLimits | None:
    if settings.max_rows_per_class is None:
        return None
    numbers: dict[Any, int] = {}  # of each class, or of each set of labels
    classes = np.array([numbers.setdefault(target, len(numbers)) for target in train.targets])
    limits = _ClassLimits(classes, settings.max_rows_per_class, settings.seed)
    tables = _part_tables(directory, parts, ["source_row", "copy"])
    for table, keep in zip(tables, distinct.masks(), strict=True):
        limits.add(table, keep)
    return limits


def _sizes_and_counts(directory: Path, parts: int) -> tuple[list[int], Counter[str]]:
    """The number of examples of each part, and the sum of all counts; reads only file footers."""
    import pyarrow.parquet

    sizes = []
    counts: Counter[str] = Counter()
    for number in range(parts):
        with pyarrow.parquet.ParquetFile(part_file(directory, number)) as part:
            sizes.append(part.metadata.num_rows)
            counts += Counter(json.loads(part.schema_arrow.metadata[_COUNTS]))
    return sizes, counts


def _part_tables(directory: Path, count: int, columns: list[str] | None) -> Iterator[Any]:
    for number in range(count):
        yield read_columns(part_file(directory, number), columns)


def _in_shards(tables: Iterable[Any]) -> Iterator[Any]:
    """Tables of `SHARD_ROWS` rows, the last one perhaps shorter, from tables of any size."""
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


def _write_table(table: pyarrow.Table, file: Path) -> None:
    """Write a Parquet file under a temporary name and rename it, so that it is never partial."""
    import pyarrow.parquet

    temporary = file.with_name(f".{file.name}.tmp")
    pyarrow.parquet.write_table(table, temporary, compression="zstd")
    temporary.replace(file)


def _row_key(texts: tuple[str, ...]) -> int:
    """A 64-bit hash of a row; among 10 million rows, two collide with probability 3e-6."""
    return keyed_rng.text_key("".join(f"{len(text)} {text}" for text in texts))


def _is_in(ordered: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    if not len(ordered):
        return np.zeros(len(keys), dtype=np.bool_)
    places = np.searchsorted(ordered, keys).clip(max=len(ordered) - 1)
    result: NDArray[np.bool_] = ordered[places] == keys
    return result
