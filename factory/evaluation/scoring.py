"""Scoring a bundle or a model folder on a labelled file, outside any run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from factory.data.dataset import Task
from factory.data.load import load_split
from factory.errors import FactoryError
from factory.evaluation.evaluate import Evaluation, evaluate
from factory.evaluation.thresholds import NEUTRAL, Thresholds, fixed_thresholds
from factory.models.classifier import Classifier
from serving.bundle import MANIFEST_NAME, read_manifest
from serving.predictor import Predictor

DEFAULT_MAX_LENGTH = 128


def score_file(
    model: Path,
    data: Path,
    text_columns: list[str],
    label: str,
    max_length: int | None,
    label_separator: str = ",",
) -> Evaluation:
    """Open `model`, read `data` with the model's own labels, and evaluate.

    Raises:
        FactoryError: the folder is neither a bundle nor a model.
        DataError: the file has problems, or labels the model does not know.
    """
    opened = _open(model, max_length)
    task, labels = opened.task, opened.labels
    recipe = _recipe(model)
    quoting = recipe.get("data", {}).get("quoting")
    split = load_split(data, text_columns, label, label_separator, task, labels, quoting)
    positive = recipe.get("gate", {}).get("positive_label")
    return evaluate(opened.classifier, split, labels, opened.thresholds, positive)


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


@dataclass(frozen=True, slots=True)
class _Opened:
    classifier: Classifier
    labels: tuple[str, ...]
    task: Task
    thresholds: Thresholds | None


def _recipe(model: Path) -> dict[str, Any]:
    """The recipe a bundle was made from; empty for a model folder."""
    return read_manifest(model).recipe if (model / MANIFEST_NAME).is_file() else {}


def _open(model: Path, max_length: int | None) -> _Opened:
    if (model / MANIFEST_NAME).is_file():
        predictor = Predictor.open(model)
        values = predictor.thresholds
        thresholds = None if values is None else Thresholds(values, "the bundle's own")
        return _Opened(predictor, predictor.labels, predictor.task, thresholds)
    if not (model / "config.json").is_file():
        raise FactoryError(
            f"{model}: neither a bundle (manifest.json) nor a model folder (config.json)"
        )
    from factory.models.classifier import load_torch_classifier, longest_input

    classifier = load_torch_classifier(model, max_length or DEFAULT_MAX_LENGTH)
    config = classifier.model.config
    longest = longest_input(classifier.model)
    if longest is not None and classifier.max_length > longest:
        classifier = replace(classifier, max_length=longest)
    labels = tuple(config.id2label[number] for number in range(config.num_labels))
    task: Task = "regression" if config.num_labels == 1 else "classification"
    if config.problem_type == "multi_label_classification":
        return _Opened(classifier, labels, "multilabel", fixed_thresholds(NEUTRAL, len(labels)))
    return _Opened(classifier, labels, task, None)
