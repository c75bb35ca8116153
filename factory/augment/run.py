"""Augment the training rows: examples in shards on disk, resumed after a kill, and read back."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.augment.examples import ExampleMaker, copies_for
from factory.augment.proposers import Proposers
from factory.augment.shards import (
    merge_parts,
    part_file,
    parts_directory,
    parts_of,
    read_columns,
    shard_file,
    write_part,
)
from factory.data.dataset import Split
from factory.errors import RecipeError
from factory.recipe.augment import AugmentSettings
from factory.runtime import distributed as processes
from factory.runtime.environment import trim_heap
from factory.runtime.progress import bar
from factory.store import read_json, write_json

INDEX_NAME = "index.json"


def augment(
    directory: Path, train: Split, settings: AugmentSettings, proposers: Proposers
) -> dict[str, Any]:
    """Write augmented examples of the training rows below `directory`.

    The rows are processed in parts, each written to its own file; several processes share the
    parts. The first process then merges the parts into shards and removes them. A killed run
    resumes, with any number of processes, and gives the same bytes.

    Args:
        directory: may contain finished parts of an interrupted run.

    Returns:
        Facts: rows, copies per row, examples, dropped examples by reason, share of words
        replaced, words replaced by source, shards.

    Raises:
        RecipeError: `max_rows_per_class` is set and the task is regression.
        FactoryError: the masked language model runs out of memory on a single text.
    """
    check_task(settings, train)
    if not processes.from_first(lambda: (directory / INDEX_NAME).is_file()):
        _write_parts(directory, train, ExampleMaker(train, settings, proposers))
        processes.wait_for_all()
    facts: dict[str, Any] = processes.from_first(lambda: _finish(directory, train, settings))
    return facts


def read_augmented(
    directory: Path,
) -> tuple[list[str] | list[tuple[str, str]], NDArray[np.int32]]:
    """Read the examples that `augment` wrote.

    Returns:
        Texts or pairs as a tokenizer takes them, and (examples,) the position in train of each
        example's row.
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
    """Check that the task has classes if the number of examples per class is limited.

    Raises:
        RecipeError: the targets are numbers.
    """
    if settings.max_rows_per_class is not None and isinstance(train.targets[0], float):
        problem = "the task is regression, which has no classes; remove the key"
        raise RecipeError("augment.max_rows_per_class", [problem])


def _write_parts(directory: Path, train: Split, maker: ExampleMaker) -> None:
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
    """Merge the parts, write the index, remove the parts; a repeated call repeats nothing."""
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
        "examples": counts["examples"],
        "dropped": {name: counts[name] for name in ("unchanged", "duplicate", "cap")},
        "words_replaced": round(share, 6),
        "replaced_by_source": replaced,
        "shards": shards,
    }
