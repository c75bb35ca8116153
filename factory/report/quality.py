"""The student beside its teacher, row by row: classes, confusion, calibration, disagreements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.data.dataset import Dataset, Split, multi_hot, read_dataset
from factory.evaluation.evaluate import Evaluations, evaluations_from_facts
from factory.report.charts import numbers_chart, reliability_chart
from factory.report.classes import (
    ClassRow,
    ConfusedPair,
    Confusion,
    class_rows,
    confused_pairs,
    confusion_among,
    most_confused,
)
from factory.report.disagreements import (
    Disagreement,
    class_disagreements,
    label_disagreements,
    number_disagreements,
)
from factory.report.facts import RunFacts
from factory.report.reliability import Reliability, class_reliability, label_set_reliability
from factory.report.run_files import stage_of
from serving.predictor import sigmoid

Logits = Mapping[str, NDArray[np.float32]]
MODELS = ("teacher", "student")


@dataclass(frozen=True, slots=True)
class Calibrated:
    """One model's reliability and its picture."""

    model: str
    measured: Reliability
    picture: str


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """How far one model's numbers lie from the true ones."""

    model: str
    mean: float
    root_mean_square: float
    median: float
    p95: float


@dataclass(frozen=True, slots=True)
class Quality:
    """What can be told of the gate's split; what does not fit the task is empty.

    Args:
        stored: whether the run kept the outputs of its models; earlier versions did not.
        differing: rows on which the two models answer differently.
    """

    split: str
    rows: int
    classes: list[ClassRow]
    pairs: list[ConfusedPair]
    confusions: list[tuple[str, Confusion]]
    calibrations: list[Calibrated]
    errors: list[ErrorRow]
    number_pictures: list[str]
    disagreements: list[Disagreement]
    differing: int | None
    stored: bool


def measure_quality(facts: RunFacts, texts: int) -> Quality | None:
    """Compare student and teacher on the gate's split; None where the run's stages are gone.

    Args:
        texts: how many disagreements to show; 0 leaves the texts out.
    """
    evaluation, data = (stage_of(facts.stages, role) for role in ("evaluate", "data"))
    if evaluation is None or data is None:
        return None
    dataset = read_dataset(data.directory)
    split = next(one for one in dataset.splits() if one.name == facts.split)
    evaluations = evaluations_from_facts(evaluation.facts)
    scored = {model: evaluations[model][facts.split] for model in MODELS}
    logits = _logits(evaluation.directory, facts.split)
    pairs: list[ConfusedPair] = []
    confusions: list[tuple[str, Confusion]] = []
    if scored["student"].confusion:
        taught, learned = (scored[model].confusion for model in MODELS)
        pairs = confused_pairs(taught, learned, facts.labels)
        numbers = most_confused(taught, learned)
        confusions = [
            (model, confusion_among(scored[model].confusion, facts.labels, numbers))
            for model in MODELS
        ]
    return Quality(
        split=facts.split,
        rows=len(split),
        classes=class_rows(scored["teacher"].per_class, scored["student"].per_class),
        pairs=pairs,
        confusions=confusions,
        calibrations=_calibrations(logits, split, dataset),
        errors=_errors(logits, split),
        number_pictures=_number_pictures(logits, split),
        disagreements=_disagreements(logits, split, dataset, evaluations, texts),
        differing=_differing(evaluation.directory, facts.split, dataset.task),
        stored=bool(logits),
    )


def _logits(directory: Path, split: str) -> Logits:
    """Both models' outputs, or nothing where one is not there."""
    files = {model: directory / f"{model}.{split}.logits.npy" for model in MODELS}
    if not all(file.is_file() for file in files.values()):
        return {}
    return {model: np.load(file) for model, file in files.items()}


def _differing(directory: Path, split: str, task: str) -> int | None:
    if task == "regression":
        return None
    one, other = (np.load(directory / f"{model}.{split}.npy") for model in MODELS)
    return int((one != other).reshape(len(one), -1).any(axis=1).sum())


def _calibrations(logits: Logits, split: Split, dataset: Dataset) -> list[Calibrated]:
    if dataset.task == "regression":
        return []
    result = []
    for model, outputs in logits.items():
        if dataset.task == "multilabel":
            applies = multi_hot(split, len(dataset.labels))
            measured = label_set_reliability(sigmoid(outputs).astype(np.float64), applies)
        else:
            measured = class_reliability(outputs, np.array(split.targets, dtype=np.int64))
        description = (
            f"Reliability of the {model}: expected calibration error {measured.error:.3f} "
            f"over {len(measured.bins)} bins"
        )
        kind: Any = model
        picture = reliability_chart(measured, kind, f"reliability-{model}", description)
        result.append(Calibrated(model, measured, picture))
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


def _number_pictures(logits: Logits, split: Split) -> list[str]:
    if not isinstance(split.targets[0], float):
        return []
    places = np.linspace(0, len(split) - 1, min(1000, len(split))).astype(int)
    targets = np.array(split.targets, dtype=np.float64)[places].tolist()
    pictures = []
    for model, outputs in logits.items():
        kind: Any = model
        answers = outputs[places, 0].tolist()
        described = f"Answers of the {model} over the true values, {len(places)} rows"
        pictures.append(numbers_chart(targets, answers, kind, f"numbers-{model}", described))
    return pictures


def _disagreements(
    logits: Logits, split: Split, dataset: Dataset, evaluations: Evaluations, texts: int
) -> list[Disagreement]:
    if not logits or texts == 0:
        return []
    taught, learned = (logits[model] for model in MODELS)
    if dataset.task == "regression":
        return number_disagreements(taught, learned, split, texts)
    if dataset.task == "classification":
        return class_disagreements(taught, learned, split, dataset.labels, texts)
    deciding = [evaluations[model]["dev"].thresholds for model in MODELS]
    assert deciding[0] is not None, "multilabel models have thresholds"
    assert deciding[1] is not None, "multilabel models have thresholds"
    both = (deciding[0], deciding[1])
    return label_disagreements(taught, learned, split, dataset.labels, both, texts)
