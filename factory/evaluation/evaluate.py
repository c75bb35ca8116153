"""Score a model on labelled rows: metrics with intervals, per label, confusion, predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from factory.data.dataset import Dataset, Split
from factory.data.formats import Quoting
from factory.data.load import load_split
from factory.errors import FactoryError, TrainingError
from factory.evaluation.metrics import (
    RESAMPLES,
    Score,
    confusion,
    equal_rows,
    interval,
    per_label,
    positive_class,
    share,
)
from factory.evaluation.results import EvaluatedSplit, Evaluation
from factory.evaluation.thresholds import NEUTRAL, Thresholds, fixed_thresholds, tuned_thresholds
from factory.models.classifier import (
    Classifier,
    load_torch_classifier,
    logits_with_bar,
    longest_input,
)
from factory.models.tasks import TASKS, task_of, task_of_model
from serving.bundle import MANIFEST_NAME, Manifest, Task
from serving.predictor import Predictor

DEFAULT_MAX_LENGTH = 128


def evaluate(
    classifier: Classifier,
    split: Split,
    labels: tuple[str, ...],
    thresholds: Thresholds | None = None,
    positive_label: str | None = None,
) -> EvaluatedSplit:
    """Score a classifier on a split; see `evaluate_logits`."""
    logits = logits_with_bar(classifier, split.inputs(), f"score {split.name}")
    return evaluate_logits(logits, split, labels, thresholds, positive_label)


def evaluate_splits(
    classifier: Classifier,
    splits: Sequence[Split],
    labels: tuple[str, ...],
    thresholds: float | Literal["tuned"] = "tuned",
    positive_label: str | None = None,
    tuned_for: str = "micro_f1",
) -> dict[str, EvaluatedSplit]:
    """Score a classifier on dev and, with the thresholds found there, on the other splits.

    Args:
        splits: dev first; a multilabel classifier's thresholds are tuned on it.
        thresholds: of a multilabel classifier, or "tuned"; other tasks have none.
        tuned_for: micro_f1 or macro_f1.
    """
    outputs = [
        logits_with_bar(classifier, split.inputs(), f"score {split.name}") for split in splits
    ]
    dev, task = splits[0], task_of(splits[0])
    chosen: Thresholds | None = None
    if task.traits.has_label_sets and thresholds == "tuned":
        targets = task.targets(dev, len(labels))
        chosen = tuned_thresholds(outputs[0], targets, dev.name, tuned_for)
    elif task.traits.has_label_sets:
        chosen = fixed_thresholds(float(thresholds), len(labels))
    return {
        split.name: evaluate_logits(logits, split, labels, chosen, positive_label)
        for split, logits in zip(splits, outputs, strict=True)
    }


def evaluate_logits(
    logits: NDArray[np.float32],
    split: Split,
    labels: tuple[str, ...],
    thresholds: Thresholds | None = None,
    positive_label: str | None = None,
) -> EvaluatedSplit:
    """Score outputs of a classifier on a split.

    Args:
        thresholds: multilabel only; None: 0.5 for every label.
        positive_label: the positive label of two, for the metric f1; None: the last.

    Shapes:
        logits: (rows, labels), or (rows, 1) for regression
    """
    task = task_of(split)
    if task.traits.has_label_sets and thresholds is None:
        thresholds = fixed_thresholds(NEUTRAL, len(labels))
    targets = task.targets(split, len(labels))
    predicted = task.predict(logits, thresholds)
    positive = positive_class(labels, positive_label)
    one_label = task.traits.has_labels and targets.ndim == 1
    return EvaluatedSplit(
        split.name,
        len(split),
        score_predictions(task.name, targets, predicted, positive),
        per_label(targets, predicted, labels) if task.traits.has_labels else {},
        confusion(targets, predicted, labels) if one_label else [],
        thresholds,
        predicted=predicted,
        logits=logits,
    )


def score_predictions(
    task: Task,
    targets: NDArray[Any],
    predicted: NDArray[Any],
    positive: int | None = None,
    resamples: int = RESAMPLES,
) -> dict[str, Score]:
    """Every metric of a task: shares of rows with Wilson intervals, the others with bootstrap.

    Args:
        positive: the positive class of the metric f1; None leaves it out.

    Shapes:
        targets, predicted: (rows,) class numbers or values; (rows, labels) booleans for multilabel
    """
    one = TASKS[task]
    scores: dict[str, Score] = {}
    if one.row_metric is not None:
        right = int(equal_rows(targets, predicted).sum())
        scores[one.row_metric] = share(right, len(targets))
    for name, (value, values) in one.resample(targets, predicted, positive, resamples).items():
        scores[name] = Score(value, *interval(values))
    return scores


def agreement(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Agreement: the share of the rows with equal predictions of two models, in every label.

    Shapes:
        one, other: `predicted` of two evaluations of the same split
    """
    return float(equal_rows(one, other).mean())


def check_student(evaluation: Evaluation, dataset: Dataset) -> None:
    """Check that the student is better than chance on dev.

    Raises:
        TrainingError: it is not.
    """
    problem = TASKS[dataset.task].chance_problem(evaluation, dataset, 0.0)
    if problem is not None:
        raise TrainingError(
            f"the student {problem}. Distillation did not work: see the loss curve in losses.csv "
            "of the distill stage, and try more epochs or another learning rate in "
            "distill.intermediate and distill.prediction"
        )


def score_file(
    model: Path,
    data: Path,
    text_columns: list[str],
    label: str,
    max_length: int | None,
    label_separator: str = ",",
) -> EvaluatedSplit:
    """Score a bundle or a model folder on a labelled file.

    Raises:
        FactoryError: the folder is neither a bundle nor a model.
        DataError: the file has problems, or labels that the model does not have.
    """
    task: Task
    if (model / MANIFEST_NAME).is_file():
        predictor = Predictor.open(model)
        labels, task, values = predictor.labels, predictor.task, predictor.thresholds
        recipe = predictor.manifest.recipe
        quoting: Quoting | None = recipe.get("data", {}).get("quoting")
        split = load_split(data, text_columns, label, label_separator, task, labels, quoting)
        thresholds = None if values is None else Thresholds(values, "the bundle's own")
        return evaluate(predictor, split, labels, thresholds, positive_label_of(predictor.manifest))
    if not (model / "config.json").is_file():
        raise FactoryError(
            f"{model}: neither a bundle (manifest.json) nor a model folder (config.json)"
        )
    classifier = load_torch_classifier(model, max_length or DEFAULT_MAX_LENGTH)
    longest = longest_input(classifier.model)
    if longest is not None:
        classifier = replace(classifier, max_length=min(classifier.max_length, longest))
    config = classifier.model.config
    labels = tuple(config.id2label[number] for number in range(config.num_labels))
    task = task_of_model(config).name
    split = load_split(data, text_columns, label, label_separator, task, labels, None)
    return evaluate(classifier, split, labels)


def evaluation_lines(evaluation: Evaluation) -> list[str]:
    """The evaluation as text."""
    thresholds = evaluation.thresholds
    width = max(10, *map(len, evaluation.scores))
    return [
        f"{evaluation.split}: {evaluation.rows} rows",
        *([] if thresholds is None else [f"thresholds: {thresholds.source}"]),
        *(
            f"{name:{width}} {score.value:.4f}  (95 %: {score.low:.4f} to {score.high:.4f})"
            for name, score in evaluation.scores.items()
        ),
    ]


def positive_label_of(manifest: Manifest) -> str | None:
    """The positive label of a bundle's metric f1, if its recipe names one."""
    label: str | None = manifest.recipe.get("gate", {}).get("positive_label")
    return label
