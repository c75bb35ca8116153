"""The tasks of a recipe and their properties; their code is in `factory.models.tasks`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from serving.bundle import Task

ClassificationMetric = Literal["accuracy", "balanced_accuracy", "macro_f1", "mcc", "f1"]
RegressionMetric = Literal["spearman", "pearson"]
MultilabelMetric = Literal["micro_f1", "macro_f1", "exact_match"]


@dataclass(frozen=True, slots=True)
class TaskTraits:
    """The differences between tasks for the recipe, the report and the bundle.

    Args:
        title: for people.
        metrics: names; the first is the default of gate.metric.
        has_labels: False for numbers.
        has_label_sets: whether a row has any number of labels, and each label a threshold.
    """

    title: str
    metrics: tuple[str, ...]
    has_labels: bool = True
    has_label_sets: bool = False


TASK_TRAITS: Mapping[Task, TaskTraits] = {
    "classification": TaskTraits("classification", get_args(ClassificationMetric)),
    "regression": TaskTraits("regression", get_args(RegressionMetric), has_labels=False),
    "multilabel": TaskTraits(
        "multilabel classification", get_args(MultilabelMetric), has_label_sets=True
    ),
}
