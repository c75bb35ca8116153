"""The augmentation stage: variants of the training rows, in shards, resumed after a kill."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from factory.augment.merging import merge_parts, shard_file
from factory.augment.parts import (
    part_file,
    parts_directory,
    parts_of,
    read_columns,
    write_part,
)
from factory.augment.variants import VariantMaker, copies_for
from factory.data.dataset import Split
from factory.errors import RecipeError
from factory.recipe.augment import AugmentSettings
from factory.runtime import distributed as processes
from factory.runtime.environment import trim_heap
from factory.runtime.progress import bar
from factory.store import read_json, write_json

if TYPE_CHECKING:
    from factory.augment.tools import AugmentTools

INDEX_NAME = "index.json"


def augment(
    directory: Path,
    train: Split,
    settings: AugmentSettings,
    tools: AugmentTools,
) -> dict[str, Any]:
    """Write the variants of the training rows below `directory`.

    The rows are worked on in parts, each a file of its own; several processes share them. The
    first process then merges the parts into shards and removes them. Killed anywhere and started
    again, with any number of processes, the files are the same bytes.

    Args:
        directory: finished parts of an interrupted run are found there.

    Returns:
        Rows, copies of each, variants, those dropped and why, share of words replaced and who
        gave the new ones, shards.

    Raises:
        RecipeError: a cap per class, and the task has no classes.
        FactoryError: the mlm cannot read a single text in the memory there is.
    """
    check_task(settings, train)
    if not processes.from_first(lambda: (directory / INDEX_NAME).is_file()):
        maker = VariantMaker(train, settings, tools)
        _write_parts(directory, train, maker)
        processes.wait_for_all()
    facts: dict[str, Any] = processes.from_first(lambda: _finish(directory, train, settings))
    return facts


def read_augmented(
    directory: Path,
) -> tuple[list[str] | list[tuple[str, str]], NDArray[np.int32]]:
    """What `augment` wrote: the variants, and the position in train of each one's row.

    Returns:
        Texts or pairs as a tokenizer takes them, and (variants,) source rows.
    """
    index = read_json(directory / INDEX_NAME)
    names = ["text", "text_pair"] if index["pairs"] else ["text"]
    columns: list[list[str]] = [[] for _ in names]
    source_rows = [np.empty(0, dtype=np.int32)]
    for number in range(len(index["shards"])):
        table = read_columns(shard_file(directory, number), [*names, "source_row"])
        for column, name in zip(columns, names, strict=True):
            column += table.column(name).to_pylist()
        source_rows.append(table.column("source_row").to_numpy())
    rows = np.concatenate(source_rows)
    if index["pairs"]:
        return list(zip(columns[0], columns[1], strict=True)), rows
    return columns[0], rows


def check_task(settings: AugmentSettings, train: Split) -> None:
    """Refuse a cap per class where rows have no classes.

    Raises:
        RecipeError: the targets are numbers.
    """
    if settings.max_rows_per_class is not None and isinstance(train.targets[0], float):
        problem = "the task is regression, which has no classes; leave the key out"
        raise RecipeError("augment.max_rows_per_class", [problem])


def _write_parts(directory: Path, train: Split, maker: VariantMaker) -> None:
    parts_directory(directory).mkdir(parents=True, exist_ok=True)
    group = processes.current()
    mine = list(enumerate(parts_of(len(train))))[group.rank :: group.count]
    todo = [(number, rows) for number, rows in mine if not part_file(directory, number).is_file()]
    total = sum(len(rows) for _, rows in mine)
    done = total - sum(len(rows) for _, rows in todo)
    with bar("augmenting", total, "row", initial=done) as progress:
        for number, rows in todo:
            made = maker.make(rows)
            write_part(part_file(directory, number), made, train.text_pairs is not None)
            trim_heap()
            progress.advance(len(rows))


def _finish(directory: Path, train: Split, settings: AugmentSettings) -> dict[str, Any]:
    """Merge the parts unless that is done, and remove them; the index is written in between."""
    file = directory / INDEX_NAME
    if not file.is_file():
        shards, counts = merge_parts(directory, len(parts_of(len(train))), train, settings)
        facts = _facts(counts, len(train), copies_for(len(train), settings), len(shards))
        pairs = train.text_pairs is not None
        write_json(file, {"pairs": pairs, "shards": shards, "facts": facts})
    shutil.rmtree(parts_directory(directory), ignore_errors=True)
    written: dict[str, Any] = read_json(file)["facts"]
    return written


def _facts(counts: Counter[str], rows: int, copies: int, shards: int) -> dict[str, Any]:
    replaced = {
        name.removeprefix("from:"): counts[name]
        for name in sorted(counts)
        if name.startswith("from:")
    }
    share = sum(replaced.values()) / counts["words"] if counts["words"] else 0.0
    return {
        "rows": rows,
        "copies": copies,
        "variants": counts["variants"],
        "dropped": {name: counts[name] for name in ("unchanged", "duplicate", "cap")},
        "words_replaced": round(share, 6),
        "replaced_by_source": replaced,
        "shards": shards,
    }
