"""Compare the student with its teacher on the gate's split, from the outputs of the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from factory.data.dataset import Dataset, Split, read_dataset
from factory.evaluation.evaluate import Evaluations
from factory.models.tasks import TASKS
from factory.report.charts import numbers_chart, reliability_chart
from factory.report.errors import (
    ClassRow,
    ConfusedPair,
    Confusion,
    Disagreement,
    Reliability,
    class_disagreements,
    class_reliability,
    class_rows,
    confused_pairs,
    confusion_among,
    label_disagreements,
    label_set_reliability,
    most_confused,
    number_disagreements,
)
from factory.report.facts import RunFacts
from serving.bundle import Task

Model = Literal["teacher", "student"]
Logits = Mapping[Model, NDArray[np.float32]]
MODELS: tuple[Model, Model] = ("teacher", "student")
NUMBERS_SHOWN = 1000


@dataclass(frozen=True, slots=True)
class Calibrated:
    """One model's reliability and its chart."""

    model: Model
    measured: Reliability
    chart: str


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """Distance of one model's predictions from the true values."""

    model: Model
    mean: float
    root_mean_square: float
    median: float
    p95: float


@dataclass(frozen=True, slots=True)
class Quality:
    """Teacher and student on the gate's split; what does not fit the task is empty.

    Args:
        differing: rows with different predictions; None for regression.
    """

    split: str
    rows: int
    classes: list[ClassRow]
    pairs: list[ConfusedPair]
    confusions: list[tuple[str, Confusion]]
    calibrations: list[Calibrated]
    errors: list[ErrorRow]
    number_charts: list[str]
    disagreements: list[Disagreement]
    differing: int | None


def compare_models(facts: RunFacts, texts: int) -> Quality | None:
    """Compare student and teacher; None when the run's stages are no longer in the store.

    Args:
        texts: how many disagreements to show; 0 leaves the texts out.
    """
    evaluation, data = facts.stage("evaluate"), facts.stage("data")
    if evaluation is None or data is None or facts.evaluations is None:
        return None
    dataset = read_dataset(data.directory)
    split = next(one for one in dataset.splits() if one.name == facts.split)
    teacher, student = (facts.evaluations[model][facts.split] for model in MODELS)
    logits: Logits = {
        model: np.load(evaluation.directory / f"{model}.{facts.split}.logits.npy")
        for model in MODELS
    }
    pairs: list[ConfusedPair] = []
    confusions: list[tuple[str, Confusion]] = []
    if student.confusion:
        pairs = confused_pairs(teacher.confusion, student.confusion, facts.labels)
        numbers = most_confused(teacher.confusion, student.confusion)
        confusions = [
            (model, confusion_among(one.confusion, facts.labels, numbers))
            for model, one in zip(MODELS, (teacher, student), strict=True)
        ]
    return Quality(
        split=facts.split,
        rows=len(split),
        classes=class_rows(teacher.per_class, student.per_class),
        pairs=pairs,
        confusions=confusions,
        calibrations=_calibrations(logits, split, dataset),
        errors=_errors(logits, split),
        number_charts=_number_charts(logits, split),
        disagreements=_disagreements(logits, split, dataset, facts.evaluations, texts),
        differing=_differing(evaluation.directory, facts.split, dataset.task),
    )


def _differing(directory: Path, split: str, task: Task) -> int | None:
    if not TASKS[task].traits.has_labels:
        return None
    one, other = (np.load(directory / f"{model}.{split}.npy") for model in MODELS)
    return int((one != other).reshape(len(one), -1).any(axis=1).sum())


def _calibrations(logits: Logits, split: Split, dataset: Dataset) -> list[Calibrated]:
    task = TASKS[dataset.task]
    if not task.traits.has_labels:
        return []
    targets = task.targets(split, len(dataset.labels))
    result = []
    for model, outputs in logits.items():
        if task.traits.has_label_sets:
            measured = label_set_reliability(task.activation(outputs), targets)
        else:
            measured = class_reliability(outputs, targets)
        description = (
            f"Reliability of the {model}: expected calibration error {measured.error:.3f} "
            f"over {len(measured.bins)} bins"
        )
        chart = reliability_chart(measured, model, f"reliability-{model}", description)
        result.append(Calibrated(model, measured, chart))
    return result


def _errors(logits: Logits, split: Split) -> list[ErrorRow]:
    if not isinstance(split.targets[0], float):
        return []
    targets = np.array(split.targets, dtype=np.float64)
    rows = []
    for model, outputs in logits.items():
        apart = np.abs(outputs[:, 0] - targets)
        rows.append(
            ErrorRow(
                model,
                float(apart.mean()),
                float(np.sqrt((apart**2).mean())),
                float(np.median(apart)),
                float(np.quantile(apart, 0.95)),
            )
        )
    return rows


def _number_charts(logits: Logits, split: Split) -> list[str]:
    if not isinstance(split.targets[0], float):
        return []
    places = np.linspace(0, len(split) - 1, min(NUMBERS_SHOWN, len(split))).astype(int)
    targets = np.array(split.targets, dtype=np.float64)[places].tolist()
    charts = []
    for model, outputs in logits.items():
        predicted = outputs[places, 0].tolist()
        description = f"Predictions of the {model} over the true values, {len(places)} rows"
        charts.append(numbers_chart(targets, predicted, model, f"numbers-{model}", description))
    return charts


def _disagreements(
    logits: Logits, split: Split, dataset: Dataset, evaluations: Evaluations, texts: int
) -> list[Disagreement]:
    if texts == 0:
        return []
    teacher, student = (logits[model] for model in MODELS)
    traits = TASKS[dataset.task].traits
    if not traits.has_labels:
        return number_disagreements(teacher, student, split, texts)
    if not traits.has_label_sets:
        return class_disagreements(teacher, student, split, dataset.labels, texts)
    deciding = [evaluations[model]["dev"].thresholds for model in MODELS]
    assert deciding[0] is not None, "multilabel models have thresholds"
    assert deciding[1] is not None, "multilabel models have thresholds"
    both = (deciding[0], deciding[1])
    return label_disagreements(teacher, student, split, dataset.labels, both, texts)
