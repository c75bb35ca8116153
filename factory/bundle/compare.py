"""Compare two bundles on the same rows: metrics, flips, costs, recipes; the result as Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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
from factory.bundle.measurements import RunMeasurements, read_measurements
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

SIGNIFICANT = 0.05
CLASSES_SHOWN = 30
OTHER_CONDITIONS = (
    "The latencies were measured on different machines or under different conditions; their ratio "
    "is not meaningful."
)
COST_LABELS = {"size_bytes": "size", "p50_ms": "latency p50", "p95_ms": "latency p95"}


@dataclass(frozen=True, slots=True)
class Flips:
    """The rows of one class by which bundle is right about them.

    Args:
        rows: of the class; for multilabel all rows, as every row is right or wrong about the label.
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
class Cost:
    """Size in bytes or latency in milliseconds of the served form of each bundle."""

    name: str
    old: float
    new: float

    @property
    def ratio(self) -> float:
        """New over old."""
        return self.new / self.old


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of `factory compare`.

    Args:
        rows_sha256: of the rows that both bundles labelled.
        agreement: share of the rows that both label alike; None for regression.
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
    costs: list[Cost]
    same_conditions: bool
    recipe_changes: Mapping[str, tuple[Any, Any]]

    def to_facts(self) -> dict[str, Any]:
        """The comparison as JSON data."""
        return {
            "old": _name_facts(self.old),
            "new": _name_facts(self.new),
            "task": self.new.task,
            "split": self.split,
            "rows": self.rows,
            "rows_sha256": self.rows_sha256,
            "metrics": [one.to_facts() for one in self.differences],
            "agreement": self.agreement,
            "flips": [asdict(one) for one in self.flips],
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
    check_same_kind(before.manifest, after.manifest, str(old), str(new))
    if data is not None:
        known = shared_labels(after.labels, before.labels)
        split, names = rows_of_file(data, after.manifest, known)
    else:
        split, names = rows_of_runs(old, new, split_name)
    labels = shared_labels(names, after.labels, before.labels)
    return _compare(before, after, split, labels)


def check_same_kind(old: Manifest, new: Manifest, old_name: str, new_name: str) -> None:
    """Check that both bundles have the same task and kind of input.

    Raises:
        ComparisonError: another task, or pairs against single texts.
    """
    kinds = [f"{one.task}{' of pairs' if one.text_pair else ''}" for one in (old, new)]
    if kinds[0] != kinds[1]:
        raise ComparisonError(
            f"{old_name} is {kinds[0]}, {new_name} is {kinds[1]}; give two bundles of one kind"
        )


def recipe_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, by dotted key."""
    before, after = flatten(old), flatten(new)
    return {
        key: (before.get(key), after.get(key))
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    }


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


def _compare(
    before: Predictor, after: Predictor, split: Split, labels: tuple[str, ...]
) -> Comparison:
    old, new = before.manifest, after.manifest
    measured = read_measurements(old), read_measurements(new)
    task = TASKS[new.task]
    targets = task.targets(split, len(labels))
    was = predict_rows(before, split, labels, "old bundle")
    now = predict_rows(after, split, labels, "new bundle")
    positive = positive_class(labels, positive_label_of(new))
    return Comparison(
        old,
        new,
        split.name,
        len(split),
        rows_fingerprint(split, labels),
        differences(new.task, targets, was, now, positive),
        flips(targets, was, now, labels),
        agreement(was, now) if task.traits.has_labels else None,
        _costs(old, new, measured),
        (measured[0].latency_conditions, measured[0].machine)
        == (measured[1].latency_conditions, measured[1].machine),
        recipe_changes(old.recipe, new.recipe),
    )


def _costs(
    old: Manifest, new: Manifest, measured: tuple[RunMeasurements, RunMeasurements]
) -> list[Cost]:
    sizes = [float(one.files[one.model.file].size_bytes) for one in (old, new)]
    costs = [Cost("size_bytes", *sizes)]
    was = measured[0].latency.get(old.model.variant)
    now = measured[1].latency.get(new.model.variant)
    if was is not None and now is not None:
        costs += [Cost("p50_ms", was.p50_ms, now.p50_ms), Cost("p95_ms", was.p95_ms, now.p95_ms)]
    return costs


def _name_facts(manifest: Manifest) -> dict[str, str]:
    return {
        "name": manifest.name,
        "version": manifest.version,
        "served": manifest.model.variant,
    }


def comparison_text(comparison: Comparison) -> str:
    """A comparison as Markdown: verdict, metrics, costs, flips and recipe changes."""
    old, new = comparison.old, comparison.new
    parts = [
        f"# {_name(old)} to {_name(new)}",
        f"{_verdict(comparison.differences[0])} {comparison.rows} rows of {comparison.split}.",
        _metric_table(comparison),
        _cost_table(comparison),
    ]
    if comparison.flips:
        parts.append(_flip_table(comparison))
    parts.append(_recipe_table(comparison))
    return "\n\n".join(parts)


def _verdict(first: Difference) -> str:
    if first.p_value >= SIGNIFICANT:
        verdict = "does not differ significantly"
    else:
        verdict = "is better" if first.difference > 0 else "is worse"
    return (
        f"**{first.metric} {verdict}**: {first.old:.4f} to {first.new:.4f}, "
        f"p = {first.p_value:.3g} ({first.test})."
    )


def _metric_table(comparison: Comparison) -> str:
    rows = [
        f"| {one.metric} | {one.old:.4f} | {one.new:.4f} | {one.difference:+.4f} "
        f"({one.low:+.4f} to {one.high:+.4f}) | {one.p_value:.3g} | {one.test} |"
        for one in comparison.differences
    ]
    head = "| metric | old | new | difference (95 %) | p | test |\n|---|---|---|---|---|---|"
    table = "\n".join(["## Metrics", "", head, *rows])
    if comparison.agreement is None:
        return table
    share = f"{100 * comparison.agreement:.1f} %"
    return f"{table}\n\nAgreement: both bundles label {share} of the rows alike."


def _cost_table(comparison: Comparison) -> str:
    rows = ["| | old | new | new / old |", "|---|---|---|---|"]
    for one in comparison.costs:
        unit = "MB" if one.name == "size_bytes" else "ms"
        scale = 1e6 if unit == "MB" else 1.0
        rows.append(
            f"| {COST_LABELS[one.name]} | {one.old / scale:.2f} {unit} "
            f"| {one.new / scale:.2f} {unit} | {one.ratio:.2f} |"
        )
    table = "\n".join(["## Served form", "", *rows])
    served = f"{comparison.old.model.variant} to {comparison.new.model.variant}"
    note = "" if comparison.same_conditions else f" {OTHER_CONDITIONS}"
    return f"{table}\n\nServed: {served}.{note}"


def _flip_table(comparison: Comparison) -> str:
    shown = [one for one in comparison.flips if one.lost or one.gained][:CLASSES_SHOWN]
    rows = [
        f"| {_cell(one.label)} | {one.rows} | {one.both_right} | {one.lost} | {one.gained} "
        f"| {one.both_wrong} |"
        for one in shown
    ]
    lost = sum(one.lost for one in comparison.flips)
    gained = sum(one.gained for one in comparison.flips)
    head = "| class | rows | both right | lost | gained | both wrong |\n|---|---|---|---|---|---|"
    left = sum(1 for one in comparison.flips if one.lost or one.gained) - len(shown)
    more = f"\n\n{left} more classes have flips; use --json to list them." if left else ""
    table = "\n".join([head, *rows]) if rows else "No row changed from right to wrong or back."
    return f"## Flips\n\n{lost} lost, {gained} gained.\n\n{table}{more}"


def _recipe_table(comparison: Comparison) -> str:
    rows = [
        f"| `{key}` | {_setting(old)} | {_setting(new)} |"
        for key, (old, new) in comparison.recipe_changes.items()
    ]
    if not rows:
        return "## Recipe\n\nNo differences."
    return "\n".join(["## Recipe", "", "| setting | old | new |", "|---|---|---|", *rows])


def _setting(value: Any) -> str:
    return "-" if value is None else f"`{_cell(json.dumps(value, ensure_ascii=False))}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _name(manifest: Manifest) -> str:
    return f"{manifest.name} {manifest.version[:12]}"
