"""Read the data of the report's charts: loss curves of the stages, lengths of the inputs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from factory.data.dataset import Split
from factory.report.facts import StageFiles

LOSSES_FILE = "losses.csv"
POINTS_SHOWN = 60
PHASE_TITLES = {
    "general": "General distillation",
    "intermediate": "Intermediate phase",
    "prediction": "Prediction phase",
    "baseline": "Baseline, trained without the teacher",
}
ROWS_COUNTED = 20_000
BARS = 24


@dataclass(frozen=True, slots=True)
class Curve:
    """One loss term over the steps; each value is the mean since the previous one.

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


def loss_panels(stages: Sequence[StageFiles]) -> list[Panel]:
    """One panel per phase and kind of loss, in the order of training."""
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
    """The first point, then means over groups of equal size, each at the step of its last point."""
    count = -(-(len(points) - 1) // POINTS_SHOWN) or 1
    groups = [points[:1]]
    groups += [points[place : place + count] for place in range(1, len(points), count)]
    return Curve(
        layer,
        [group[-1][0] for group in groups],
        [sum(point[1] for point in group) / len(group) for group in groups],
        [sum(point[2] for point in group) / len(group) for group in groups],
    )


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens per row of one split, special tokens included, before truncation.

    Args:
        counted: how many rows were tokenized, evenly spread over the split.
        truncated: share of them longer than the recipe's max_length.
        shares: share of the rows in each bar of `edges`; the last bar includes all longer rows.
    """

    split: str
    rows: int
    counted: int
    median: int
    p95: int
    longest: int
    truncated: float
    edges: list[float]
    shares: list[float]


def token_lengths(splits: Sequence[Split], tokenizer_file: Path, max_length: int) -> list[Lengths]:
    """The lengths of each split, over the same bars."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    counts = []
    for split in splits:
        inputs = split.inputs()
        places = np.linspace(0, len(inputs) - 1, min(ROWS_COUNTED, len(inputs))).astype(int)
        encoded = tokenizer.encode_batch_fast([inputs[place] for place in places])
        counts.append(np.array([len(one.ids) for one in encoded]))
    edges = _edges(max(int(np.quantile(count, 0.995)) for count in counts), max_length)
    return [
        Lengths(
            split=split.name,
            rows=len(split),
            counted=len(count),
            median=int(np.median(count)),
            p95=int(np.quantile(count, 0.95)),
            longest=int(count.max()),
            truncated=float((count > max_length).mean()),
            edges=edges,
            shares=(np.histogram(np.minimum(count, edges[-1]), edges)[0] / len(count)).tolist(),
        )
        for split, count in zip(splits, counts, strict=True)
    ]


def _edges(longest: int, max_length: int) -> list[float]:
    """Bars of whole tokens that cover nearly all rows."""
    top = min(max(longest, 8), 4 * max_length)
    width = max(1, -(-top // BARS))
    return [float(width * number) for number in range(top // width + 2)]
