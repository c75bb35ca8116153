"""How the run was made: data, layer map, losses, stage times, recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from factory.data.dataset import read_dataset
from factory.report.charts import lengths_chart, loss_chart
from factory.report.curves import Panel, loss_panels
from factory.report.data_lengths import Lengths, token_lengths
from factory.report.facts import RunFacts
from factory.report.run_files import stage_of

LABELS_SHOWN = 40
KIND_TITLES = {
    "total": "total loss",
    "embedding": "embedding loss",
    "hidden": "hidden loss by student layer, 1 is its start",
    "attention": "attention loss by student layer, 1 is its start",
    "prediction": "prediction loss",
}


@dataclass(frozen=True, slots=True)
class LossPicture:
    """One panel of loss curves with its heading."""

    title: str
    picture: str


@dataclass(frozen=True, slots=True)
class LayerMap:
    """Student layers (from 1, the embedding as 0) and the teacher layer each one learned from."""

    teacher_layers: int
    student_layers: int
    pairs: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class BalanceRow:
    """Rows of one label by split, and its share of train."""

    label: str
    rows: Mapping[str, int]
    share: float


@dataclass(frozen=True, slots=True)
class DataSection:
    """What went in; `hidden_labels` is how many labels the balance leaves out."""

    facts: Mapping[str, Any]
    lengths: list[Lengths]
    lengths_picture: str
    balance: list[BalanceRow]
    hidden_labels: int


@dataclass(frozen=True, slots=True)
class StageRow:
    """One stage of the run and what it took; `share` is of the longest stage."""

    stage: str
    seconds: float
    share: float
    fingerprint: str


def loss_pictures(facts: RunFacts) -> dict[str, list[LossPicture]]:
    """Every loss by phase, in the order in which they were trained."""
    panels = loss_panels(facts.stages)
    pictures: dict[str, list[LossPicture]] = {}
    for number, panel in enumerate(panels):
        if _repeats_total(panel, panels):
            continue
        title = KIND_TITLES.get(panel.kind, panel.kind)
        description = f"{panel.phase}, {title}: " + "; ".join(
            ("" if curve.layer is None else f"layer {curve.layer} ")
            + f"from {curve.values[0]:.3g} to {curve.values[-1]:.3g}"
            for curve in panel.curves
        )
        picture = loss_chart(panel, f"loss-{number}", description)
        pictures.setdefault(panel.title, []).append(LossPicture(title, picture))
    return pictures


def layer_map(facts: RunFacts) -> LayerMap | None:
    """Which teacher layer each student layer imitates, where the run's stages say so."""
    teacher = stage_of(facts.stages, "teacher")
    taught: list[int] | None = next(
        (stage.facts["layer_map"] for stage in facts.stages if "layer_map" in stage.facts), None
    )
    if teacher is None or taught is None:
        return None
    pairs = [(0, 0), *enumerate(taught, start=1)]
    return LayerMap(teacher.facts["layers"], len(taught), pairs)


def lesson(facts: RunFacts) -> list[tuple[str, str]]:
    """What the student started from and learned on, as names and values."""
    stage = next((stage for stage in facts.stages if stage.record["stage"] == "distill"), None)
    if stage is None:
        return []
    told = stage.facts
    steps = ", ".join(f"{phase} {count}" for phase, count in told.get("steps", {}).items())
    lines = [
        ("start", str(facts.recipe["student"]["start"])),
        ("rows", str(told.get("rows", ""))),
        ("steps", steps),
        ("attention", str(told.get("attention", ""))),
        ("temperature", str(facts.recipe["distill"]["prediction"]["temperature"])),
    ]
    return [(name, value) for name, value in lines if value]


def data_section(facts: RunFacts) -> DataSection | None:
    """Lengths, balance, repeats; None where the data stage is gone."""
    data = stage_of(facts.stages, "data")
    if data is None:
        return None
    lengths: list[Lengths] = []
    picture = ""
    tokenizer = _tokenizer(facts)
    if tokenizer is not None:
        splits = list(read_dataset(data.directory).splits())
        lengths = token_lengths(splits, tokenizer, facts.max_length)
        described = "Tokens per row. " + "; ".join(
            f"{one.split}: median {one.median}, 95 % up to {one.p95}" for one in lengths
        )
        picture = lengths_chart(lengths, facts.max_length, "lengths", described)
    balance, hidden = _balance(data.facts)
    return DataSection(data.facts, lengths, picture, balance, hidden)


def stage_rows(facts: RunFacts) -> list[StageRow]:
    """The stages in the order in which they were made."""
    longest = max((stage.record["seconds"] for stage in facts.stages), default=0) or 1
    return [
        StageRow(
            stage.record["stage"],
            stage.record["seconds"],
            stage.record["seconds"] / longest,
            stage.record["fingerprint"][:12],
        )
        for stage in facts.stages
    ]


def recipe_lines(recipe: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Every setting as a dotted key and its value; what is not set is left out."""
    lines: list[tuple[str, str]] = []
    for key, value in recipe.items():
        if isinstance(value, Mapping):
            lines += recipe_lines(value, f"{prefix}{key}.")
        elif value is not None:
            shown = str(value).lower() if isinstance(value, bool) else str(value)
            lines.append((f"{prefix}{key}", shown))
    return lines


def _repeats_total(panel: Panel, panels: list[Panel]) -> bool:
    """Whether a phase's only term is drawn already as its total."""
    totals = (one for one in panels if one.phase == panel.phase and one.kind == "total")
    return panel.kind != "total" and any(panel.curves == total.curves for total in totals)


def _tokenizer(facts: RunFacts) -> Any:
    """The tokenizer that ships, or the student's own."""
    folders = [] if facts.bundle is None else [facts.bundle]
    for role in ("trim", "student", "teacher"):
        stage = stage_of(facts.stages, role)
        if stage is not None:
            folders.append(stage.directory / "model")
    return next(
        (folder / "tokenizer.json" for folder in folders if (folder / "tokenizer.json").is_file()),
        None,
    )


def _balance(facts: Mapping[str, Any]) -> tuple[list[BalanceRow], int]:
    """The labels from the commonest on; of many only both ends."""
    if "label_balance" not in facts:
        return [], 0
    balance = facts["label_balance"]
    total = max(1, facts["rows"]["train"])
    rows = [
        BalanceRow(label, {split: rows[label] for split, rows in balance.items()}, count / total)
        for label, count in balance["train"].items()
    ]
    rows.sort(key=lambda row: (-row.share, row.label))
    hidden = max(0, len(rows) - LABELS_SHOWN)
    if hidden:
        rows = rows[: LABELS_SHOWN // 2] + rows[-LABELS_SHOWN // 2 :]
    return rows, hidden
