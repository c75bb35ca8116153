"""Loss curves of a run, read from the logs that its stages left."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from factory.report.run_files import StageFiles

LOSSES_FILE = "losses.csv"
POINTS_SHOWN = 60
PHASE_TITLES = {
    "general": "General distillation",
    "intermediate": "Intermediate phase",
    "prediction": "Prediction phase",
    "baseline": "Baseline, trained without the teacher",
}


@dataclass(frozen=True, slots=True)
class Curve:
    """One loss term over the steps, each value the mean since the one before.

    Args:
        layer: of the student, from 1; None for a term of the whole model.
        values: the loss; `of_start`: the loss divided by its value before training.
    """

    layer: int | None
    steps: list[int]
    values: list[float]
    of_start: list[float]


@dataclass(frozen=True, slots=True)
class Panel:
    """The curves of one kind of loss in one phase."""

    phase: str
    title: str
    kind: str
    curves: list[Curve]


def loss_panels(stages: list[StageFiles]) -> list[Panel]:
    """One panel per phase and kind of loss, in the order in which they were trained."""
    panels: list[Panel] = []
    for stage in stages:
        file = stage.directory / LOSSES_FILE
        if file.is_file():
            panels += _panels(file)
    return panels


def _panels(file: Path) -> list[Panel]:
    terms: dict[tuple[str, str], list[tuple[int, float, float]]] = {}
    with file.open(encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            point = (int(row["step"]), float(row["value"]), float(row["of_start"]))
            terms.setdefault((row["phase"], row["term"]), []).append(point)
    kinds: dict[tuple[str, str], list[Curve]] = {}
    for (phase, term), points in terms.items():
        kind, _, layer = term.partition(".")
        number = int(layer) if layer.isdigit() else None
        kinds.setdefault((phase, kind), []).append(_curve(number, points))
    return [
        Panel(phase, PHASE_TITLES.get(phase, f"Phase {phase}"), kind, curves)
        for (phase, kind), curves in kinds.items()
    ]


def _curve(layer: int | None, points: list[tuple[int, float, float]]) -> Curve:
    """The first point, then means over equally many of the others, at the last one's step."""
    count = -(-(len(points) - 1) // POINTS_SHOWN) or 1
    groups = [points[:1]]
    groups += [points[place : place + count] for place in range(1, len(points), count)]
    return Curve(
        layer,
        [group[-1][0] for group in groups],
        [sum(point[1] for point in group) / len(group) for group in groups],
        [sum(point[2] for point in group) / len(group) for group in groups],
    )
