"""Compare the student with its teacher on the gate's split, from the outputs of the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from factory.data.dataset import Dataset, Split, read_dataset
from factory.evaluation.results import Evaluations
from factory.models.tasks import TASKS
from factory.recipe.task import TASK_TRAITS
from factory.report.charts import numbers_chart, reliability_chart
from factory.report.errors import (
    ClassRow,
    ConfusedPair,
    Confusion,
    Disagreement,
    Reliability,
    class_disagreements,
    class_rows,
    confused_pairs,
    confusion_among,
    label_disagreements,
    most_confused,
    number_disagreements,
    reliability,
)
from factory.report.facts import RunFacts

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
    """Teacher and student on the gate's split; fields of other tasks are empty.

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
    has_labels = TASK_TRAITS[dataset.task].has_labels
    differing = None
    if has_labels:
        predicted = [
            np.load(evaluation.directory / f"{model}.{facts.split}.npy") for model in MODELS
        ]
        differing = int((predicted[0] != predicted[1]).reshape(len(split), -1).any(axis=1).sum())
    return Quality(
        split=facts.split,
        rows=len(split),
        classes=class_rows(teacher.per_class, student.per_class),
        pairs=pairs,
        confusions=confusions,
        calibrations=_calibrations(logits, split, dataset) if has_labels else [],
        errors=[] if has_labels else _errors(logits, split),
        number_charts=[] if has_labels else _number_charts(logits, split),
        disagreements=_disagreements(logits, split, dataset, facts.evaluations, texts),
        differing=differing,
    )


def _calibrations(logits: Logits, split: Split, dataset: Dataset) -> list[Calibrated]:
    """Of the predicted class's probability; for multilabel, of every label on every row."""
    task = TASKS[dataset.task]
    targets = task.targets(split, len(dataset.labels))
    result = []
    for model, outputs in logits.items():
        probabilities = task.activation(outputs)
        if task.traits.has_label_sets:
            measured = reliability(probabilities.ravel(), targets.ravel())
        else:
            correct = outputs.argmax(axis=1) == targets
            measured = reliability(probabilities.max(axis=1), correct)
        description = (
            f"Reliability of the {model}: expected calibration error {measured.error:.3f} "
            f"over {len(measured.bins)} bins"
        )
        chart = reliability_chart(measured, model, f"reliability-{model}", description)
        result.append(Calibrated(model, measured, chart))
    return result


def _errors(logits: Logits, split: Split) -> list[ErrorRow]:
    targets = np.array(split.targets, dtype=np.float64)
    rows = []
    for model, outputs in logits.items():
        apart = np.abs(outputs[:, 0] - targets)
        figures = (apart.mean(), np.sqrt((apart**2).mean()), *np.quantile(apart, [0.5, 0.95]))
        rows.append(ErrorRow(model, *map(float, figures)))
    return rows


def _number_charts(logits: Logits, split: Split) -> list[str]:
    places = np.linspace(0, len(split) - 1, min(NUMBERS_SHOWN, len(split))).astype(int)
    targets = np.array(split.targets, dtype=np.float64)[places].tolist()
    charts = []
    for model, outputs in logits.items():
        predicted = outputs[places, 0].tolist()
        description = f"Predictions of the {model} over the true values, {len(places)} rows"
        charts.append(numbers_chart(targets, predicted, model, f"numbers-{model}", description))
    return charts


def _disagreements(
    logits: Logits, split: Split, dataset: Dataset, evaluations: Evaluations, shown: int
) -> list[Disagreement]:
    teacher, student = (logits[model] for model in MODELS)
    traits = TASK_TRAITS[dataset.task]
    if not traits.has_labels:
        return number_disagreements(teacher, student, split, shown)
    if not traits.has_label_sets:
        return class_disagreements(teacher, student, split, dataset.labels, shown)
    of_teacher, of_student = (evaluations[model]["dev"].thresholds for model in MODELS)
    assert of_teacher is not None, "multilabel models have thresholds"
    assert of_student is not None, "multilabel models have thresholds"
    thresholds = of_teacher, of_student
    return label_disagreements(teacher, student, split, dataset.labels, thresholds, shown)
