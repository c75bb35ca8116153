"""How the run was made: data, layer map, losses, recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from factory.data.dataset import read_dataset
from factory.recipe.recipe import Recipe
from factory.recipe.section import flatten
from factory.report.charts import lengths_chart, loss_chart
from factory.report.curves import Lengths, loss_panels, token_lengths
from factory.report.facts import DataFacts, RunFacts

LABELS_SHOWN = 40
KIND_TITLES = {
    "total": "total loss",
    "embedding": "embedding loss",
    "hidden": "hidden loss by student layer, relative to its start",
    "attention": "attention loss by student layer, relative to its start",
    "prediction": "prediction loss",
}


@dataclass(frozen=True, slots=True)
class LossChart:
    """One panel of loss curves with its heading."""

    title: str
    chart: str


@dataclass(frozen=True, slots=True)
class LayerMap:
    """Pairs of a student layer and the teacher layer it imitates; 0 is the embedding."""

    teacher_layers: int
    student_layers: int
    pairs: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class BalanceRow:
    """Rows of one label by split, and its share of the training rows."""

    label: str
    rows: Mapping[str, int]
    share: float


@dataclass(frozen=True, slots=True)
class DataSection:
    """The data of the run; `hidden_labels` is how many labels `balance` leaves out."""

    facts: DataFacts
    lengths: list[Lengths]
    lengths_chart: str
    balance: list[BalanceRow]
    hidden_labels: int


def loss_charts(facts: RunFacts) -> dict[str, list[LossChart]]:
    """Every loss by phase, in the order of training."""
    panels = loss_panels(facts.stages)
    totals = {panel.phase: panel.curves for panel in panels if panel.kind == "total"}
    charts: dict[str, list[LossChart]] = {}
    for number, panel in enumerate(panels):
        if panel.kind != "total" and panel.curves == totals.get(panel.phase):
            continue  # the only term of its phase
        title = KIND_TITLES.get(panel.kind, panel.kind)
        description = f"{panel.phase}, {title}: " + "; ".join(
            ("" if curve.layer is None else f"layer {curve.layer} ")
            + f"from {curve.values[0]:.3g} to {curve.values[-1]:.3g}"
            for curve in panel.curves
        )
        chart = loss_chart(panel, f"loss-{number}", description)
        charts.setdefault(panel.title, []).append(LossChart(title, chart))
    return charts


def layer_map(facts: RunFacts) -> LayerMap | None:
    """The teacher layer that each student layer imitates; None when the stages are gone."""
    teacher = facts.stage("teacher")
    layers: list[int] | None = next(
        (stage.facts["layer_map"] for stage in facts.stages if "layer_map" in stage.facts), None
    )
    if teacher is None or layers is None:
        return None
    pairs = [(0, 0), *enumerate(layers, start=1)]
    return LayerMap(teacher.facts["layers"], len(layers), pairs)


def training_lines(facts: RunFacts) -> list[tuple[str, str]]:
    """The start and the training data of the student, as names and values."""
    stage = next((stage for stage in facts.stages if stage.record["stage"] == "distill"), None)
    if stage is None:
        return []
    trained = stage.facts
    steps = ", ".join(f"{phase} {count}" for phase, count in trained.get("steps", {}).items())
    lines = [
        ("start", facts.recipe.student.start),
        ("rows", str(trained.get("rows", ""))),
        ("steps", steps),
        ("attention", str(trained.get("attention", ""))),
        ("temperature", str(facts.recipe.distill.prediction.temperature)),
    ]
    return [(name, value) for name, value in lines if value]


def data_section(facts: RunFacts) -> DataSection | None:
    """Rows, lengths and balance; None when the data stage is no longer in the store."""
    stage, data, max_length = facts.stage("data"), facts.data, facts.recipe.data.max_length
    if stage is None or data is None:
        return None
    lengths: list[Lengths] = []
    chart = ""
    tokenizer = _tokenizer(facts)
    if tokenizer is not None:
        splits = read_dataset(stage.directory).splits()
        lengths = token_lengths(splits, tokenizer, max_length)
        description = "Tokens per row. " + "; ".join(
            f"{one.split}: median {one.median}, 95 % up to {one.p95}" for one in lengths
        )
        chart = lengths_chart(lengths, max_length, "lengths", description)
    balance, hidden = _balance(data)
    return DataSection(data, lengths, chart, balance, hidden)


def recipe_lines(recipe: Recipe) -> list[tuple[str, str]]:
    """Every setting as a dotted key and its value; unset keys are left out."""
    return [
        (key, str(value).lower() if isinstance(value, bool) else str(value))
        for key, value in flatten(recipe.model_dump(mode="json")).items()
        if value is not None
    ]


def _tokenizer(facts: RunFacts) -> Path | None:
    """The file of the tokenizer that ships, or of the student's or teacher's."""
    folders = [] if facts.bundle is None else [facts.bundle]
    stages = (facts.stage(role) for role in ("trim", "student", "teacher"))
    folders += [stage.directory / "model" for stage in stages if stage is not None]
    files = (folder / "tokenizer.json" for folder in folders)
    return next((file for file in files if file.is_file()), None)


def _balance(data: DataFacts) -> tuple[list[BalanceRow], int]:
    """The labels, most frequent first; a long list is cut in the middle, with the number cut."""
    balance = data.label_balance
    total = max(1, data.rows["train"])
    rows = [
        BalanceRow(label, {split: rows[label] for split, rows in balance.items()}, count / total)
        for label, count in balance.get("train", {}).items()
    ]
    rows.sort(key=lambda row: (-row.share, row.label))
    hidden = max(0, len(rows) - LABELS_SHOWN)
    if hidden:
        rows = rows[: LABELS_SHOWN // 2] + rows[-LABELS_SHOWN // 2 :]
    return rows, hidden
