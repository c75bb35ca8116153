"""The facts of a data set that a run records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from factory.data.checks import count_repeats
from factory.data.dataset import Dataset, Split


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
    if dataset.task == "classification":
        facts["label_balance"] = {split.name: _balance(split, dataset.labels) for split in splits}
    else:
        facts["target_range"] = {split.name: _range(split) for split in splits}
    return facts


def _longest(split: Split) -> int:
    """Characters of the longest input; a pair counts both texts."""
    pairs = split.text_pairs or [""] * len(split)
    return max(len(one) + len(other) for one, other in zip(split.texts, pairs, strict=True))


def _balance(split: Split, labels: Sequence[str]) -> dict[str, int]:
    rows = Counter(split.targets)
    return {name: rows[index] for index, name in enumerate(labels)}


def _range(split: Split) -> dict[str, float]:
    mean = sum(split.targets) / len(split)
    return {"min": min(split.targets), "mean": mean, "max": max(split.targets)}
