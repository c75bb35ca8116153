"""The facts of a data set that a run records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from factory.data.checks import count_repeats
from factory.data.dataset import Dataset, Split, labels_of_rows


def facts_of(
    dataset: Dataset, across: Mapping[str, int], notices: Sequence[str]
) -> dict[str, object]:
    """Rows, label balance, longest text and duplicates, as JSON data."""
    splits = dataset.splits()
    facts: dict[str, object] = {
        "task": dataset.task,
        "labels": list(dataset.labels),
        "rows": {split.name: len(split) for split in splits},
        "longest_text_characters": {split.name: _longest(split) for split in splits},
        "duplicates_within": {split.name: count_repeats(split.inputs()) for split in splits},
        "duplicates_across": dict(across),
        "notices": list(notices),
    }
    if dataset.task != "regression":
        facts["label_balance"] = {split.name: _balance(split, dataset.labels) for split in splits}
    if dataset.task == "multilabel":
        facts["rows_without_labels"] = {split.name: _unlabelled(split) for split in splits}
    if dataset.task == "regression":
        facts["target_range"] = {split.name: _range(split) for split in splits}
    return facts


def _longest(split: Split) -> int:
    """Characters of the longest input; a pair counts both texts."""
    pairs = split.text_pairs or [""] * len(split)
    return max(len(one) + len(other) for one, other in zip(split.texts, pairs, strict=True))


def _balance(split: Split, labels: Sequence[str]) -> dict[str, int]:
    """Rows of each label; of several labels each counts."""
    rows = Counter(label for labels in labels_of_rows(split) for label in labels)
    return {name: rows[index] for index, name in enumerate(labels)}


def _unlabelled(split: Split) -> int:
    return sum(not labels for labels in labels_of_rows(split))


def _range(split: Split) -> dict[str, float]:
    numbers = [target for target in split.targets if isinstance(target, float)]
    return {"min": min(numbers), "mean": sum(numbers) / len(split), "max": max(numbers)}
