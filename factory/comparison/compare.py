"""Two bundles to a Comparison: metrics, flips, sizes, latencies, recipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from factory.comparison.flips import Flips, flips
from factory.comparison.rows import (
    DataFile,
    find_bundle,
    rows_fingerprint,
    rows_of_file,
    rows_of_runs,
)
from factory.data.dataset import Split
from factory.errors import ComparisonError
from factory.evaluation.evaluate import agreement, positive_label_of
from factory.evaluation.metrics import positive_class
from factory.evaluation.predecessor import predict_rows, shared_labels
from factory.evaluation.significance import Difference, differences
from factory.models.tasks import TASKS
from factory.recipe.section import flatten
from serving.bundle import Manifest
from serving.predictor import Predictor


@dataclass(frozen=True, slots=True)
class Cost:
    """What the served form of each bundle needs: bytes of its file, or milliseconds of its p50."""

    name: str
    old: float
    new: float

    @property
    def ratio(self) -> float:
        """New over old."""
        return self.new / self.old


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that `factory compare` tells.

    Args:
        rows_sha256: of the rows both answered.
        alike: share of the rows that both answer alike; None for numbers.
        same_conditions: whether both latencies were measured on one kind of machine in one way.
        recipe_changes: by dotted key, the old and the new value; None where there is none.
    """

    old: Manifest
    new: Manifest
    split: str
    rows: int
    rows_sha256: str
    differences: list[Difference]
    flips: list[Flips]
    alike: float | None
    costs: list[Cost]
    same_conditions: bool
    recipe_changes: Mapping[str, tuple[Any, Any]]

    def facts(self) -> dict[str, Any]:
        """The comparison as JSON data."""
        return {
            "old": _name_facts(self.old),
            "new": _name_facts(self.new),
            "task": self.new.task,
            "split": self.split,
            "rows": self.rows,
            "rows_sha256": self.rows_sha256,
            "metrics": [one.to_facts() for one in self.differences],
            "answered_alike": self.alike,
            "flips": [one.facts() for one in self.flips],
            "costs": {
                one.name: {"old": one.old, "new": one.new, "ratio": one.ratio} for one in self.costs
            },
            "latency_under_same_conditions": self.same_conditions,
            "recipe": {
                key: {"old": old, "new": new} for key, (old, new) in self.recipe_changes.items()
            },
        }


def compare(
    old: Path, new: Path, data: DataFile | None = None, split_name: str | None = None
) -> Comparison:
    """Let two bundles answer the same rows through the server's code, and compare.

    Args:
        old, new: bundles, or stores, of which the newest bundle counts.
        data: rows to answer; None: those that both runs were judged on.
        split_name: dev or test, of these runs.

    Raises:
        ComparisonError: bundles of different tasks, or no rows that both can be judged on.
        BundleError: a bundle is broken.
        DataError: the file cannot be used.
    """
    old, new = find_bundle(old), find_bundle(new)
    before, after = Predictor.open(old), Predictor.open(new)
    check_same_kind(before.manifest, after.manifest, str(old), str(new))
    if data is not None:
        known = shared_labels(after.labels, before.labels)
        split, names = rows_of_file(data, after.manifest, known)
    else:
        split, names = rows_of_runs(old, new, split_name)
    labels = shared_labels(names, after.labels, before.labels)
    return _compare(before, after, split, labels)


def check_same_kind(old: Manifest, new: Manifest, old_name: str, new_name: str) -> None:
    """Refuse bundles that do not answer the same question.

    Raises:
        ComparisonError: another task, or pairs against single texts.
    """
    kinds = [f"{one.task}{' of pairs' if one.text_pair else ''}" for one in (old, new)]
    if kinds[0] != kinds[1]:
        raise ComparisonError(
            f"{old_name} is {kinds[0]}, {new_name} is {kinds[1]}; give two bundles of one kind"
        )


def recipe_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings that differ, by dotted key."""
    before, after = flatten(old), flatten(new)
    return {
        key: (before.get(key), after.get(key))
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    }


def _compare(
    before: Predictor, after: Predictor, split: Split, labels: tuple[str, ...]
) -> Comparison:
    old, new = before.manifest, after.manifest
    task = TASKS[new.task]
    targets = task.targets(split, len(labels))
    was = predict_rows(before, split, labels, "old bundle")
    now = predict_rows(after, split, labels, "new bundle")
    return Comparison(
        old,
        new,
        split.name,
        len(split),
        rows_fingerprint(split, labels),
        differences(new.task, targets, was, now, positive_class(labels, positive_label_of(new))),
        flips(targets, was, now, labels),
        agreement(was, now) if task.has_labels else None,
        _costs(old, new),
        all(
            old.measurements.get(key) == new.measurements.get(key)
            for key in ("latency_conditions", "machine")
        ),
        recipe_changes(old.recipe, new.recipe),
    )


def _costs(old: Manifest, new: Manifest) -> list[Cost]:
    sizes = [float(one.files[one.model.file].size_bytes) for one in (old, new)]
    found = [Cost("size_bytes", *sizes)]
    for key in ("p50_ms", "p95_ms"):
        latencies = [
            one.measurements.get("latency", {}).get(one.model.variant, {}).get(key, np.nan)
            for one in (old, new)
        ]
        if np.isfinite(latencies).all():
            found.append(Cost(key, *map(float, latencies)))
    return found


def _name_facts(manifest: Manifest) -> dict[str, str]:
    return {
        "name": manifest.name,
        "version": manifest.version,
        "served": manifest.model.variant,
    }
