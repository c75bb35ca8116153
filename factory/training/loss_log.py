"""The loss log: every term over the steps, and relative to its value before training."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from factory.errors import TrainingError

COLUMNS = ("phase", "step", "term", "value", "of_start")


@dataclass(frozen=True, slots=True)
class LossPoint:
    """Mean of one loss term over the steps since the point before it.

    Args:
        step: optimizer steps done; 0 is the first batch, measured before any step.
        of_start: the value divided by the term's value at step 0.
    """

    phase: str
    step: int
    term: str
    value: float
    of_start: float


def require_finite(phase: str, step: int, means: Mapping[str, float], rate: float) -> None:
    """Raise if a loss is not finite.

    Raises:
        TrainingError: naming the terms.
    """
    broken = [term for term, value in means.items() if not math.isfinite(value)]
    if broken:
        raise TrainingError(
            f"{phase} phase, step {step}: {', '.join(broken)} is not a finite "
            f"number; lower its learning_rate (now {rate:g})"
        )


def points_of(
    phase: str, step: int, means: Mapping[str, float], start: Mapping[str, float]
) -> list[LossPoint]:
    """One point per term; `of_start` is NaN for a term that started at 0."""
    return [
        LossPoint(phase, step, term, value, value / start[term] if start[term] else math.nan)
        for term, value in means.items()
    ]


def bar_text(means: Mapping[str, float], start: Mapping[str, float]) -> str:
    """The total, and the terms against their start, for the progress bar."""
    parts = [f"loss {means['total']:.4f}"]
    ratios = {term: means[term] / start[term] for term in means if start[term]}
    if len(ratios) > 1:
        kinds: dict[str, list[float]] = {}
        for term, ratio in ratios.items():
            kinds.setdefault(term.partition(".")[0], []).append(ratio)
        parts += [
            f"{kind} {'/'.join(f'{ratio:.0%}' for ratio in values)}"
            for kind, values in kinds.items()
            if kind != "total"
        ]
    elif "total" in ratios:
        parts.append(f"{ratios['total']:.0%} of its start")
    return ", ".join(parts)


def write_losses(file: Path, points: Iterable[LossPoint]) -> None:
    """Write the log as CSV with the columns `phase, step, term, value, of_start`."""
    with file.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(COLUMNS)
        writer.writerows(
            [p.phase, p.step, p.term, f"{p.value:.6g}", f"{p.of_start:.4g}"] for p in points
        )


def summary(points: Iterable[LossPoint]) -> dict[str, dict[str, float]]:
    """First and last value of each `phase.term`."""
    result: dict[str, dict[str, float]] = {}
    for point in points:
        entry = result.setdefault(f"{point.phase}.{point.term}", {"first": point.value})
        entry["last"] = point.value
    return result
