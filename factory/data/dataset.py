"""The labelled splits of a run, their facts, and their form on disk."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from factory.errors import DataError
from factory.recipe.task import TASK_TRAITS
from factory.store import write_json
from serving.bundle import Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DESCRIPTION_FILE = "dataset.json"


@dataclass(frozen=True, slots=True)
class Split:
    """The rows of one split, in the order of its source.

    Args:
        name: train, dev or test.
        texts: one text per row.
        text_pairs: the second text per row, or None when rows are single texts.
        targets: per row a class index (classification), a number (regression), or the indices of
            all classes that apply, increasing (multilabel).
    """

    name: str
    texts: list[str]
    text_pairs: list[str] | None
    targets: list[int] | list[float] | list[tuple[int, ...]]

    def __len__(self) -> int:
        return len(self.texts)

    def inputs(self) -> list[str] | list[tuple[str, str]]:
        """The inputs of a tokenizer: texts, or pairs of texts."""
        if self.text_pairs is None:
            return list(self.texts)
        return list(zip(self.texts, self.text_pairs, strict=True))


@dataclass(frozen=True, slots=True)
class Dataset:
    """Checked splits of one task.

    Args:
        labels: class names in the order of the class indices; ("value",) for regression.
        dev: rows for selection and the gate.
        test: rows that are scored, but not used for selection.
    """

    task: Task
    labels: tuple[str, ...]
    train: Split
    dev: Split
    test: Split | None

    def splits(self) -> tuple[Split, ...]:
        """The splits that exist, train first."""
        present = (self.train, self.dev, self.test)
        return tuple(split for split in present if split is not None)


def write_dataset(dataset: Dataset, directory: Path) -> None:
    """Write one Parquet file per split and a description; texts are stored exactly."""
    import pyarrow

    directory.mkdir(parents=True, exist_ok=True)
    kinds = {int: pyarrow.int64(), float: pyarrow.float64(), tuple: pyarrow.list_(pyarrow.int64())}
    for split in dataset.splits():
        targets = pyarrow.array(split.targets, kinds[type(split.targets[0])])
        path = directory / f"{split.name}.parquet"
        write_texts(path, split.texts, split.text_pairs, {"target": targets})
    description = {
        "task": dataset.task,
        "labels": list(dataset.labels),
        "splits": [split.name for split in dataset.splits()],
    }
    write_json(directory / DESCRIPTION_FILE, description)


def write_texts(
    path: Path, texts: list[str], pairs: list[str] | None, others: Mapping[str, Any]
) -> None:
    """Write texts, second texts and other Arrow columns as one Parquet file."""
    import pyarrow
    import pyarrow.parquet

    columns = {"text": texts} if pairs is None else {"text": texts, "text_pair": pairs}
    arrays = {name: pyarrow.array(column, pyarrow.string()) for name, column in columns.items()}
    pyarrow.parquet.write_table(pyarrow.table(arrays | dict(others)), path)


def read_columns(path: Path) -> dict[str, list[Any]]:
    """The columns of a Parquet file that a stage wrote."""
    import pyarrow.parquet

    # ParquetFile, because read_table would read partition columns from folder names
    with pyarrow.parquet.ParquetFile(path) as file:
        columns: dict[str, list[Any]] = file.read().to_pydict()
    return columns


def read_dataset(directory: Path) -> Dataset:
    """Read the files of `write_dataset`.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        description = json.loads((directory / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        task: Task = description["task"]
        splits: dict[str, Split] = {}
        for name in description["splits"]:
            columns = read_columns(directory / f"{name}.parquet")
            targets = [tuple(one) if isinstance(one, list) else one for one in columns["target"]]
            splits[name] = Split(name, columns["text"], columns.get("text_pair"), targets)
        labels = tuple(description["labels"])
        return Dataset(task, labels, splits["train"], splits["dev"], splits.get("test"))
    except (OSError, ValueError, KeyError) as error:
        problem = f"{error}; delete the directory and run the data stage again"
        raise DataError(f"the data set in {directory} cannot be read", [problem]) from error


def select(split: Split, name: str, rows: Sequence[int]) -> Split:
    """The given rows of a split, as a split of another name."""
    pairs = split.text_pairs
    return Split(
        name,
        [split.texts[row] for row in rows],
        None if pairs is None else [pairs[row] for row in rows],
        cast("list[int]", [split.targets[row] for row in rows]),  # any of the three types
    )


def labels_of_rows(split: Split) -> list[tuple[int, ...]]:
    """The class indices of each row; none for the numbers of a regression."""
    rows: list[tuple[int, ...]] = []
    for target in split.targets:
        if isinstance(target, tuple):
            rows.append(target)
        else:
            rows.append((target,) if isinstance(target, int) else ())
    return rows


def multi_hot(split: Split, labels: int) -> NDArray[np.bool_]:
    """Which labels apply to which row: (rows, labels)."""
    import numpy as np

    applies = np.zeros((len(split), labels), dtype=np.bool_)
    for row, indices in enumerate(labels_of_rows(split)):
        applies[row, list(indices)] = True
    return applies


def facts_of(
    dataset: Dataset, across: Mapping[str, int], notices: Sequence[str]
) -> dict[str, object]:
    """Rows, label balance, target range, longest text and duplicates, as JSON data."""
    splits = dataset.splits()
    facts: dict[str, object] = {
        "task": dataset.task,
        "labels": list(dataset.labels),
        "rows": {split.name: len(split) for split in splits},
        "duplicates_within": {
            split.name: len(split) - len(set(split.inputs())) for split in splits
        },
        "duplicates_across": dict(across),
        "notices": list(notices),
    }
    if not TASK_TRAITS[dataset.task].has_labels:
        targets: dict[str, Any] = {split.name: split.targets for split in splits}
        facts["target_range"] = {
            name: {"min": min(some), "mean": sum(some) / len(some), "max": max(some)}
            for name, some in targets.items()
        }
    else:
        balance = {}
        for split in splits:  # of several labels in a row each counts
            counts = Counter(label for labels in labels_of_rows(split) for label in labels)
            balance[split.name] = {name: counts[i] for i, name in enumerate(dataset.labels)}
        facts["label_balance"] = balance
    return facts
