"""The first screen of the page: verdict, key figures, the table of models, metric against cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory.report.charts import Kind, Point, cost_chart
from factory.report.facts import RunFacts
from factory.report.run_files import stage_of
from factory.report.tables import NAMES, TORCH_MODELS

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True)
class ScoreCell:
    """One model's metric on one split."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model of the run; what was not measured is None.

    Args:
        scores: the run's metric by split.
        kept: the metric over the teacher's on the gate's split.
        agreement: share of the gate's split labelled as by the fp32 file.
        verdict: what gate 2 said of a form it tried: served, passed, or the rules it broke.
    """

    model: str
    letter: str
    name: str
    kind: Kind
    scores: Mapping[str, ScoreCell]
    kept: float | None
    size_bytes: int | None
    parameters: int | None
    p50_ms: float | None
    p95_ms: float | None
    agreement: float | None
    verdict: str


@dataclass(frozen=True, slots=True)
class KeyFigure:
    """One number of the first row, with what it is compared to."""

    label: str
    value: str
    note: str


def model_rows(facts: RunFacts) -> list[ModelRow]:
    """Every model of the run, torch models first."""
    measured = facts.measurements
    parameters = _parameters(facts)
    rows = []
    for place, model in enumerate(name for name in NAMES if name in facts.scores):
        latency = measured.get("latency", {}).get(model, {})
        scores = {
            split: ScoreCell(**values[facts.metric])
            for split, values in facts.scores[model].items()
            if facts.metric in values
        }
        rows.append(
            ModelRow(
                model=model,
                letter=LETTERS[place],
                name=NAMES[model].replace("student, ", ""),
                kind=_kind(model, facts.served),
                scores=scores,
                kept=_kept(facts, model),
                size_bytes=measured.get("size_bytes", {}).get(model),
                parameters=parameters.get(model),
                p50_ms=latency.get("p50_ms"),
                p95_ms=latency.get("p95_ms"),
                agreement=measured.get("label_agreement_with_fp32", {})
                .get(model, {})
                .get(facts.split),
                verdict=_verdict(facts, model),
            )
        )
    return rows


def key_figures(facts: RunFacts, rows: Sequence[ModelRow]) -> list[KeyFigure]:
    """Of the served form, or of the student where nothing is served."""
    by_model = {row.model: row for row in rows}
    teacher = by_model["teacher"]
    shown = by_model.get(facts.served or "student", by_model["student"])
    score = shown.scores[facts.split]
    figures = [
        KeyFigure(
            f"{facts.metric} on {facts.split}",
            f"{score.value:.4f}",
            f"95 %: {score.low:.3f} to {score.high:.3f}; "
            f"teacher {teacher.scores[facts.split].value:.4f}",
        )
    ]
    if shown.kept is not None:
        figures.append(KeyFigure("kept of the teacher", f"{100 * shown.kept:.1f} %", "retention"))
    if shown.p50_ms is not None and teacher.p50_ms is not None:
        note = f"{teacher.p50_ms / shown.p50_ms:.1f} times as fast as the teacher in torch"
        figures.append(KeyFigure("latency, p50", f"{shown.p50_ms:.2f} ms", note))
    if shown.size_bytes is not None and teacher.size_bytes is not None:
        note = f"{teacher.size_bytes / shown.size_bytes:.1f} times smaller than the teacher"
        figures.append(KeyFigure("size", f"{shown.size_bytes / 1e6:.1f} MB", note))
    if shown.parameters is not None and teacher.parameters is not None:
        note = f"teacher {teacher.parameters / 1e6:.1f} M"
        figures.append(KeyFigure("parameters", f"{shown.parameters / 1e6:.1f} M", note))
    return figures


def cost_pictures(facts: RunFacts, rows: Sequence[ModelRow]) -> list[str]:
    """Metric against latency and against size; nothing where no form was measured."""
    costs: dict[str, Mapping[str, float]] = {
        "p50 latency, ms": {row.model: row.p50_ms for row in rows if row.p50_ms is not None},
        "size of the weights, MB": {
            row.model: row.size_bytes / 1e6 for row in rows if row.size_bytes is not None
        },
    }
    pictures = []
    for number, (label, cost) in enumerate(costs.items()):
        points = [_point(row, cost[row.model], facts.split) for row in rows if row.model in cost]
        if any(point.exported for point in points):
            described = "; ".join(f"{p.letter}: {p.value:.4f} at {p.cost:.4g}" for p in points)
            title = f"{facts.metric} on {facts.split} against {label}. {described}"
            pictures.append(cost_chart(points, label, f"cost-{number}", title))
    return pictures


def summary(facts: RunFacts) -> str:
    """What was built, in a sentence."""
    teacher, student = stage_of(facts.stages, "teacher"), facts.recipe["student"]
    kind = "pairs of texts" if facts.text_pair else "single texts"
    into = "" if facts.task == "regression" else f", {len(facts.labels)} labels"
    taught = "" if teacher is None else f", taught by a teacher of {teacher.facts['layers']}"
    task = "multilabel classification" if facts.task == "multilabel" else facts.task
    return (
        f"{task.capitalize()} of {kind}{into}. A student of {student['layers']} layers, "
        f"{student['hidden']} wide{taught}"
    )


def _point(row: ModelRow, cost: float, split: str) -> Point:
    score = row.scores[split]
    exported = row.kind in ("form", "served")
    return Point(row.letter, row.kind, cost, score.value, score.low, score.high, exported)


def _kind(model: str, served: str | None) -> Kind:
    if model == "teacher":
        return "teacher"
    if model == "baseline":
        return "baseline"
    if model in TORCH_MODELS:
        return "student"
    return "served" if model == served else "form"


def _kept(facts: RunFacts, model: str) -> float | None:
    teacher: float = facts.scores["teacher"][facts.split][facts.metric]["value"]
    value: float = facts.scores[model][facts.split][facts.metric]["value"]
    return value / teacher if teacher > 0 else None


def _verdict(facts: RunFacts, model: str) -> str:
    if model in TORCH_MODELS:
        return ""
    if model == facts.served:
        return "served"
    for result in facts.gates:
        if facts.served is None and result.title.startswith(f"Gate 2: {model},"):
            return _broken([rule["text"] for rule in result.rules if not rule["passed"]])
    said = facts.measurements.get("forms", {}).get(model)
    if said is None:
        return "not tried"
    return _broken(said["failed_rules"])


def _broken(failed: Sequence[str]) -> str:
    names = ", ".join(text.partition(":")[0] for text in failed)
    return f"fails {names}" if names else "passes"


def _parameters(facts: RunFacts) -> dict[str, int]:
    """Counted in the weights where they are still there, else as the bundle says."""
    counts: dict[str, int] = dict(facts.measurements.get("parameters", {}))
    for stage in facts.stages:
        weights = stage.directory / "model" / "model.safetensors"
        if stage.role in (*TORCH_MODELS, "trim") and weights.is_file():
            counts[stage.role] = _count(weights)
    shipped = counts.pop("trim", counts.get("student"))
    if shipped is not None:
        counts |= {model: shipped for model in facts.scores if model not in TORCH_MODELS}
    return counts


def _count(weights: Path) -> int:
    """Numbers in a safetensors file: its head is the length of a JSON object, and the object."""
    with weights.open("rb") as file:
        head: dict[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    total = 0
    for name, entry in head.items():
        if name == "__metadata__":
            continue
        numbers = 1
        for size in entry["shape"]:
            numbers *= size
        total += numbers
    return total
