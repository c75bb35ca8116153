"""A comparison as Markdown."""

from __future__ import annotations

import json
from typing import Any

from factory.comparison.compare import Comparison
from factory.evaluation.significance import Difference
from serving.bundle import Manifest

SIGNIFICANT = 0.05
CLASSES_SHOWN = 30
SHOWN = {"size_bytes": "size", "p50_ms": "latency p50", "p95_ms": "latency p95"}


def comparison_text(comparison: Comparison) -> str:
    """Verdict, metrics, flips, costs and recipe changes."""
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
        said = "does not differ significantly"
    else:
        said = "is better" if first.difference > 0 else "is worse"
    return (
        f"**{first.metric} {said}**: {first.old:.4f} to {first.new:.4f}, "
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
    if comparison.alike is None:
        return table
    return f"{table}\n\nAnswered alike: {100 * comparison.alike:.1f} % of the rows."


def _cost_table(comparison: Comparison) -> str:
    rows = ["| | old | new | new / old |", "|---|---|---|---|"]
    for one in comparison.costs:
        unit = "MB" if one.name == "size_bytes" else "ms"
        scale = 1e6 if unit == "MB" else 1.0
        rows.append(
            f"| {SHOWN[one.name]} | {one.old / scale:.2f} {unit} | {one.new / scale:.2f} {unit} "
            f"| {one.ratio:.2f} |"
        )
    table = "\n".join(["## Served form", "", *rows])
    served = f"{comparison.old.model.variant} to {comparison.new.model.variant}"
    note = (
        ""
        if comparison.same_conditions
        else (" The latencies come from other machines or conditions: their ratio says little.")
    )
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
    more = f"\n\n{left} more classes with flips: see --json." if left else ""
    table = "\n".join([head, *rows]) if rows else "No answer changed from right to wrong or back."
    return f"## Flips\n\n{lost} lost, {gained} gained.\n\n{table}{more}"


def _recipe_table(comparison: Comparison) -> str:
    rows = [
        f"| `{key}` | {_setting(old)} | {_setting(new)} |"
        for key, (old, new) in comparison.recipe_changes.items()
    ]
    if not rows:
        return "## Recipe\n\nThe same."
    return "\n".join(["## Recipe", "", "| setting | old | new |", "|---|---|---|", *rows])


def _setting(value: Any) -> str:
    return "-" if value is None else f"`{_cell(json.dumps(value, ensure_ascii=False))}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _name(manifest: Manifest) -> str:
    return f"{manifest.name} {manifest.version[:12]}"
