"""Compare two bundles on the same rows: metrics, flips, costs, recipes; the result as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from factory.bundle.compare_rows import (
    DataFile,
    find_bundle,
    rows_fingerprint,
    rows_of_file,
    rows_of_runs,
)
from factory.bundle.measurements import read_measurements
from factory.errors import ComparisonError
from factory.evaluation.evaluate import agreement, positive_label_of
from factory.evaluation.metrics import positive_class
from factory.evaluation.predecessor import predict_rows, shared_labels
from factory.evaluation.significance import Difference, differences
from factory.models.tasks import TASKS
from factory.recipe.section import flatten
from serving.bundle import Manifest
from serving.predictor import Predictor

SIGNIFICANT = 0.05
CLASSES_SHOWN = 30
OTHER_CONDITIONS = (
    "The latencies were measured on different machines or under different conditions; their ratio "
    "is not meaningful."
)


@dataclass(frozen=True, slots=True)
class Flips:
    """Counts of the rows of one class by which of the two bundles predicts them right.

    Args:
        rows: of the class; for multilabel all rows, because every row is a decision on the label.
        lost: right in the old bundle, wrong in the new one.
        gained: the reverse.
    """

    label: str
    rows: int
    both_right: int
    lost: int
    gained: int
    both_wrong: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of `factory compare`.

    Args:
        rows_sha256: of the rows that both bundles labelled.
        agreement: share of the rows that get equal labels; None for regression.
        costs: old and new size_bytes of the served form and, where both were measured, its p50_ms
            and p95_ms.
        same_conditions: whether both latencies were measured on the same kind of machine and in
            the same way.
        recipe_changes: by dotted key, the old and the new value; None for a key that is missing.
    """

    old: Manifest
    new: Manifest
    split: str
    rows: int
    rows_sha256: str
    differences: list[Difference]
    flips: list[Flips]
    agreement: float | None
    costs: Mapping[str, tuple[float, float]]
    same_conditions: bool
    recipe_changes: Mapping[str, tuple[Any, Any]]

    def to_facts(self) -> dict[str, Any]:
        """The comparison as JSON data."""
        bundles = {
            name: {"name": one.name, "version": one.version, "served": one.model.form}
            for name, one in (("old", self.old), ("new", self.new))
        }
        costs = {
            name: {"old": old, "new": new, "ratio": new / old}
            for name, (old, new) in self.costs.items()
        }
        return {
            **bundles,
            "task": self.new.task,
            "split": self.split,
            "rows": self.rows,
            "rows_sha256": self.rows_sha256,
            "metrics": [one.to_facts() for one in self.differences],
            "agreement": self.agreement,
            "flips": [asdict(one) for one in self.flips],
            "costs": costs,
            "latency_under_same_conditions": self.same_conditions,
            "recipe": {
                key: {"old": old, "new": new} for key, (old, new) in self.recipe_changes.items()
            },
        }


def compare(
    old: Path, new: Path, data: DataFile | None = None, split_name: str | None = None
) -> Comparison:
    """Compare two bundles on the same rows, through the server's code.

    Args:
        old, new: bundles, or stores; of a store, the newest bundle.
        data: a labelled file; None: the rows that both runs were evaluated on.
        split_name: dev or test, of these runs.

    Raises:
        ComparisonError: bundles of different tasks, or no rows for both.
        BundleError: a bundle is broken.
        DataError: the file cannot be used.
    """
    old, new = find_bundle(old), find_bundle(new)
    before, after = Predictor.open(old), Predictor.open(new)
    one, other = before.manifest, after.manifest
    kinds = [f"{each.task}{' of pairs' if each.text_pair else ''}" for each in (one, other)]
    if kinds[0] != kinds[1]:
        raise ComparisonError(
            f"{old} is {kinds[0]}, {new} is {kinds[1]}; give two bundles of the same kind"
        )
    if data is not None:
        split, names = rows_of_file(data, other, shared_labels(after.labels, before.labels))
    else:
        split, names = rows_of_runs(old, new, split_name)
    labels, task = shared_labels(names, after.labels, before.labels), TASKS[other.task]
    targets = task.targets(split, len(labels))
    was = predict_rows(before, split, labels, "old bundle")
    now = predict_rows(after, split, labels, "new bundle")
    positive = positive_class(labels, positive_label_of(other))
    costs, same_conditions = _costs(one, other)
    return Comparison(
        one,
        other,
        split.name,
        len(split),
        rows_fingerprint(split, labels),
        differences(other.task, targets, was, now, positive),
        flips(targets, was, now, labels),
        agreement(was, now) if task.traits.has_labels else None,
        costs,
        same_conditions,
        _recipe_changes(one.recipe, other.recipe),
    )


def flips(
    targets: NDArray[Any], old: NDArray[Any], new: NDArray[Any], labels: Sequence[str]
) -> list[Flips]:
    """The flips of each class that has rows, most lost first; none for regression.

    Shapes:
        targets, old, new: (rows,) class numbers, or (rows, labels) booleans
    """
    if targets.dtype.kind == "f":
        return []
    found = []
    for index, label in enumerate(labels):
        if targets.ndim == 2:
            was, now = (answers[:, index] == targets[:, index] for answers in (old, new))
        else:
            own = targets == index
            was, now = (answers[own] == index for answers in (old, new))
        if len(was):
            counts = (was & now, was & ~now, ~was & now, ~was & ~now)
            found.append(Flips(label, len(was), *(int(rows.sum()) for rows in counts)))
    return sorted(found, key=lambda one: (one.gained - one.lost, -one.lost, one.label))


def _costs(old: Manifest, new: Manifest) -> tuple[dict[str, tuple[float, float]], bool]:
    """Size and latencies of the served forms, and whether the latencies can be compared."""
    was, now = read_measurements(old), read_measurements(new)
    sizes = [float(one.files[one.model.file].size_bytes) for one in (old, new)]
    costs = {"size_bytes": (sizes[0], sizes[1])}
    before, after = was.latency.get(old.model.form), now.latency.get(new.model.form)
    if before is not None and after is not None:
        costs["p50_ms"] = before.p50_ms, after.p50_ms
        costs["p95_ms"] = before.p95_ms, after.p95_ms
    conditions = [(one.latency_conditions, one.machine) for one in (was, now)]
    return costs, conditions[0] == conditions[1]


def _recipe_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, by dotted key."""
    before, after = flatten(old), flatten(new)
    return {
        key: (before.get(key), after.get(key))
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    }


def comparison_text(comparison: Comparison) -> str:
    """A comparison as Markdown: verdict, metrics, costs, flips and recipe changes."""
    old, new = (f"{one.name} {one.version[:12]}" for one in (comparison.old, comparison.new))
    parts = [
        f"# {old} to {new}",
        f"{_verdict(comparison.differences[0])} {comparison.rows} rows of {comparison.split}.",
        _metric_section(comparison),
        _cost_section(comparison),
    ]
    if comparison.flips:
        parts.append(_flip_section(comparison.flips))
    rows = [
        (f"`{key}`", _setting(before), _setting(after))
        for key, (before, after) in comparison.recipe_changes.items()
    ]
    changes = _table(("setting", "old", "new"), rows) if rows else "No differences."
    return "\n\n".join([*parts, "## Recipe", changes])


def _verdict(first: Difference) -> str:
    if first.p_value >= SIGNIFICANT:
        verdict = "does not differ significantly"
    else:
        verdict = "is better" if first.difference > 0 else "is worse"
    return (
        f"**{first.metric} {verdict}**: {first.old:.4f} to {first.new:.4f}, "
        f"p = {first.p_value:.3g} ({first.test})."
    )


def _metric_section(comparison: Comparison) -> str:
    rows = [
        (
            one.metric,
            f"{one.old:.4f}",
            f"{one.new:.4f}",
            f"{one.difference:+.4f} ({one.low:+.4f} to {one.high:+.4f})",
            f"{one.p_value:.3g}",
            one.test,
        )
        for one in comparison.differences
    ]
    table = _table(("metric", "old", "new", "difference (95 %)", "p", "test"), rows)
    if comparison.agreement is None:
        return f"## Metrics\n\n{table}"
    share = f"{100 * comparison.agreement:.1f} %"
    return f"## Metrics\n\n{table}\n\nAgreement: both bundles label {share} of the rows alike."


def _cost_section(comparison: Comparison) -> str:
    units = {
        "size_bytes": ("size", 1e6, "MB"),
        "p50_ms": ("latency p50", 1.0, "ms"),
        "p95_ms": ("latency p95", 1.0, "ms"),
    }
    rows = []
    for name, (old, new) in comparison.costs.items():
        label, scale, unit = units[name]
        shown = (f"{value / scale:.2f} {unit}" for value in (old, new))
        rows.append((label, *shown, f"{new / old:.2f}"))
    table = _table(("", "old", "new", "new / old"), rows)
    served = f"{comparison.old.model.form} to {comparison.new.model.form}"
    note = "" if comparison.same_conditions else f" {OTHER_CONDITIONS}"
    return f"## Served form\n\n{table}\n\nServed: {served}.{note}"


def _flip_section(flips: Sequence[Flips]) -> str:
    changed = [one for one in flips if one.lost or one.gained]
    rows = [(_cell(one.label), *map(str, astuple(one)[1:])) for one in changed[:CLASSES_SHOWN]]
    head = ("class", "rows", "both right", "lost", "gained", "both wrong")
    table = _table(head, rows) if rows else "No row changed from right to wrong or back."
    lost, gained = sum(one.lost for one in flips), sum(one.gained for one in flips)
    left = len(changed) - len(rows)
    more = f"\n\n{left} more classes have flips; use --json to list them." if left else ""
    return f"## Flips\n\n{lost} lost, {gained} gained.\n\n{table}{more}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def _setting(value: Any) -> str:
    return "-" if value is None else f"`{_cell(json.dumps(value, ensure_ascii=False))}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
