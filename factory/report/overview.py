"""The first screen of the report: key figures, remarks, the models, metric against cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from factory.bundle.measurements import TORCH_MODELS
from factory.bundle.tables import MODEL_LABELS
from factory.evaluation.metrics import Score
from factory.report.charts import Kind, Point, cost_chart
from factory.report.facts import RunFacts
from factory.report.quality import Quality
from factory.report.training import DataSection

FEW_ROWS = 300
FEW_ROWS_OF_A_CLASS = 10
OFTEN_TRUNCATED = 0.05


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model of the run; missing measurements are None.

    Args:
        scores: in the gate's metric by split.
        retention: the score divided by the teacher's, on the gate's split.
        agreement: with the fp32 file, on the gate's split.
        gate_2: served, passed, not tried, or the rules that failed; empty for torch models.
    """

    model: str
    letter: str
    name: str
    kind: Kind
    scores: Mapping[str, Score]
    retention: float | None
    size_bytes: int | None
    parameters: int | None
    p50_ms: float | None
    p95_ms: float | None
    agreement: float | None
    gate_2: str


@dataclass(frozen=True, slots=True)
class KeyFigure:
    """One key figure, and a note to compare it with."""

    label: str
    value: str
    note: str


def model_rows(facts: RunFacts) -> list[ModelRow]:
    """Every model of the run, torch models first."""
    measured = facts.measurements
    teacher = facts.score("teacher").value
    models = [model for model in MODEL_LABELS if model in measured.scores]
    rows = []
    for letter, model in zip(ascii_uppercase, models, strict=False):
        latency = measured.latency.get(model)
        rows.append(
            ModelRow(
                model=model,
                letter=letter,
                name=MODEL_LABELS[model].replace("student, ", ""),
                kind=_kind(model, facts.served),
                scores={
                    split: metrics[facts.metric]
                    for split, metrics in measured.scores[model].items()
                },
                retention=facts.score(model).value / teacher if teacher > 0 else None,
                size_bytes=measured.size_bytes.get(model),
                parameters=measured.parameters.get(model),
                p50_ms=None if latency is None else latency.p50_ms,
                p95_ms=None if latency is None else latency.p95_ms,
                agreement=measured.agreement.get(model, {}).get(facts.split),
                gate_2=_gate_2(facts, model),
            )
        )
    return rows


def key_figures(facts: RunFacts, rows: Sequence[ModelRow]) -> list[KeyFigure]:
    """The figures of the served form, or of the student when no form is served."""
    by_model = {row.model: row for row in rows}
    teacher, shown = by_model["teacher"], by_model[facts.served or "student"]
    score, best = facts.score(shown.model), facts.score("teacher")
    figures = [
        KeyFigure(
            f"{facts.metric} on {facts.split}",
            f"{score.value:.4f}",
            f"95 %: {score.low:.3f} to {score.high:.3f}; teacher {best.value:.4f}",
        )
    ]
    if shown.retention is not None:
        note = f"{score.value:.4f} / {best.value:.4f}"
        figures.append(KeyFigure("retention", f"{100 * shown.retention:.1f} %", note))
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


def cost_charts(facts: RunFacts, rows: Sequence[ModelRow]) -> list[str]:
    """Metric against latency and against size; empty when no form was measured."""
    costs: dict[str, Mapping[str, float]] = {
        "p50 latency, ms": {row.model: row.p50_ms for row in rows if row.p50_ms is not None},
        "size of the weights, MB": {
            row.model: row.size_bytes / 1e6 for row in rows if row.size_bytes is not None
        },
    }
    charts = []
    for number, (label, cost) in enumerate(costs.items()):
        points = []
        for row in (row for row in rows if row.model in cost):
            score, exported = row.scores[facts.split], row.kind in ("form", "served")
            bounds = (score.value, score.low, score.high)
            points.append(Point(row.letter, row.kind, cost[row.model], *bounds, exported))
        if any(point.exported for point in points):
            values = "; ".join(f"{p.letter}: {p.value:.4f} at {p.cost:.4g}" for p in points)
            title = f"{facts.metric} on {facts.split} against {label}. {values}"
            charts.append(cost_chart(points, label, f"cost-{number}", title))
    return charts


def summary(facts: RunFacts) -> str:
    """A description of the run in two sentences."""
    data, student = facts.recipe.data, facts.recipe.student
    teacher = facts.stage("teacher")
    kind = "pairs of texts" if len(data.text_columns) == 2 else "single texts"
    traits = facts.recipe.data.traits
    labels = f", {len(facts.labels)} labels" if traits.has_labels else ""
    source = "" if teacher is None else f", distilled from {teacher.facts['layers']} layers"
    return (
        f"{traits.title.capitalize()} of {kind}{labels}. A student with {student.layers} layers of "
        f"width {student.hidden}{source}"
    )


def remarks(facts: RunFacts, quality: Quality | None, data: DataSection | None) -> list[str]:
    """Short sentences about the limits of the numbers, most important first."""
    split, result = facts.split, []
    for pair, count in () if data is None else data.facts.duplicates_across.items():
        first, _, second = pair.partition("/")
        if count > 0:
            result.append(
                f"{count} inputs of {second} are also in {first}; scores on {second} may be too "
                "high."
            )
    result.append(_interval(facts))
    few = facts.rows.get(split, FEW_ROWS)
    if few < FEW_ROWS:
        result.append(f"{few} {split} rows cannot resolve small differences.")
    classes = [] if quality is None else quality.classes
    small = [row for row in classes if row.support < FEW_ROWS_OF_A_CLASS]
    if small:
        result.append(
            f"{len(small)} of {len(classes)} classes have fewer than {FEW_ROWS_OF_A_CLASS} rows in "
            f"{split}; their scores are unreliable."
        )
    if (
        split == "dev"
        and facts.recipe.data.traits.has_label_sets
        and facts.recipe.evaluate.thresholds == "tuned"
    ):
        result.append("The thresholds were tuned on dev, so every score on dev is optimistic.")
    if classes and classes[0].lost <= 0:
        result.append("No class lost F1 compared with the teacher.")
    elif classes:
        worst = classes[0]
        result.append(
            f"{worst.label} lost most F1: {worst.teacher_f1:.3f} (teacher) to "
            f"{worst.student_f1:.3f} (student), {worst.support} rows."
        )
    for one in () if data is None else data.lengths:
        if one.split == split and one.truncated >= OFTEN_TRUNCATED:
            result.append(
                f"{100 * one.truncated:.0f} % of the inputs of {split} are longer than "
                f"{facts.recipe.data.max_length} tokens and were truncated."
            )
    return result


def _interval(facts: RunFacts) -> str:
    """Whether the intervals of the teacher and the served form overlap."""
    own, teacher = facts.score(facts.served or "student"), facts.score("teacher")
    name = "served form" if facts.served else "student"
    if own.low <= teacher.high and teacher.low <= own.high:
        return (
            f"The 95 % intervals of the {name} and the teacher overlap: these rows do not clearly "
            "separate the two."
        )
    side = "above" if own.low > teacher.high else "below"
    return f"The 95 % interval of the {name} lies {side} the teacher's."


def _kind(model: str, served: str | None) -> Kind:
    if model == "teacher":
        return "teacher"
    if model == "baseline":
        return "baseline"
    if model in TORCH_MODELS:
        return "student"
    return "served" if model == served else "form"


def _gate_2(facts: RunFacts, model: str) -> str:
    if model in TORCH_MODELS:
        return ""
    if model == facts.served:
        return "served"
    rules = facts.measurements.verdicts.get(model)
    if rules is None:
        return "not tried"
    failed = ", ".join(rule.rule for rule in rules if not rule.passed)
    return f"fails {failed}" if failed else "passes"
