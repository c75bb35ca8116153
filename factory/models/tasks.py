"""The tasks: targets, losses, metrics and outputs of each, as one row of a table.

A new task also needs its name in `serving.bundle.Task`, a row in `factory.recipe.task.TASK_TRAITS`,
and code where its targets are read and its predictions are returned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from factory.data.dataset import Dataset, Split, multi_hot
from factory.evaluation.chance import (
    chance_problem_of_classes,
    chance_problem_of_label_sets,
    chance_problem_of_numbers,
)
from factory.evaluation.metrics import (
    Resampled,
    resample_classes,
    resample_label_sets,
    resample_numbers,
)
from factory.evaluation.thresholds import Thresholds, decide
from factory.recipe.task import TASK_TRAITS, TaskTraits
from serving.bundle import Task
from serving.predictor import sigmoid, softmax

if TYPE_CHECKING:
    from torch import Tensor

    from factory.evaluation.results import Evaluation

Rows = NDArray[Any]
Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TaskType:
    """A task's targets, outputs, losses and metrics.

    Args:
        problem_type: the task's name in transformers (`config.problem_type`).
        row_metric: the metric that is the share of rows predicted right, if there is one.
        targets: a split's targets as an array, given the number of labels: (rows,) class numbers
            or values, or (rows, labels) booleans.
        predict: logits to predictions, shaped as `targets`.
        activation: logits to the outputs for users: probabilities or values, (rows, labels).
        resample: every metric but `row_metric`, and its values on resamples of the rows; from
            targets, predictions, the positive class and the number of resamples.
        chance_problem: see `factory.evaluation.chance`.
        label_loss: loss per row, (rows,), from logits and `targets` as a tensor.
        teacher_loss: loss per row, (rows,), from the student's logits, the teacher's logits and
            a temperature.
        initial_bias: bias of a new classification head, (labels,), from `targets`; None leaves
            it at 0.
    """

    name: Task
    traits: TaskTraits
    problem_type: str
    row_metric: str | None
    targets: Callable[[Split, int], Rows]
    predict: Callable[[Logits, Thresholds | None], Rows]
    activation: Callable[[Logits], NDArray[np.float64]]
    resample: Callable[[Rows, Rows, int | None, int], dict[str, Resampled]]
    chance_problem: Callable[[Evaluation, Dataset, float], str | None]
    label_loss: Callable[[Tensor, Tensor], Tensor]
    teacher_loss: Callable[[Tensor, Tensor, float], Tensor]
    initial_bias: Callable[[Rows], NDArray[np.float32]] | None


def task_of(split: Split) -> TaskType:
    """The task that a split's targets belong to."""
    kinds: Mapping[type, Task] = {int: "classification", float: "regression", tuple: "multilabel"}
    return TASKS[kinds[type(split.targets[0])]]


def task_of_model(config: Any) -> TaskType:
    """The task of a classifier; without a problem_type, the one that transformers infers."""
    if config.problem_type is None:
        return TASKS["regression" if config.num_labels == 1 else "classification"]
    return next(task for task in TASKS.values() if task.problem_type == config.problem_type)


# Classification: each row has exactly one label.


def _class_numbers(split: Split, labels: int) -> Rows:
    return np.array(split.targets, dtype=np.int64)


def _most_probable(logits: Logits, thresholds: Thresholds | None) -> Rows:
    numbers: NDArray[np.int64] = logits.argmax(axis=1).astype(np.int64)
    return numbers


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    from torch.nn import functional

    return functional.cross_entropy(logits, targets, reduction="none")


def _soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Cross entropy against the teacher's probabilities, times temperature squared.

    TinyBERT, eq. 10; the square keeps the gradient's size when the temperature changes
    (Hinton et al. 2015, section 2).
    """
    from torch.nn import functional

    teacher_probabilities = functional.softmax(teacher / temperature, dim=-1)
    student_log_probabilities = functional.log_softmax(student / temperature, dim=-1)
    return -(teacher_probabilities * student_log_probabilities).sum(dim=-1) * temperature**2


# Regression: each row has a number.


def _numbers(split: Split, labels: int) -> Rows:
    return np.array(split.targets, dtype=np.float64)


def _first_output(logits: Logits, thresholds: Thresholds | None) -> Rows:
    return logits[:, 0].astype(np.float64)


def _unchanged(logits: Logits) -> NDArray[np.float64]:
    return logits.astype(np.float64)


def _squared_error(logits: Tensor, targets: Tensor) -> Tensor:
    return (logits.squeeze(-1) - targets.to(logits.dtype)).square()


def _squared_error_of_outputs(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    return (student - teacher).square().squeeze(-1)


# Multilabel: any number of labels applies to a row, none included.


def _sets(logits: Logits, thresholds: Thresholds | None) -> Rows:
    if thresholds is None:
        raise ValueError("multilabel predictions need thresholds")
    return decide(logits, thresholds)


def _binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over labels, as in transformers."""
    from torch.nn import functional

    targets = targets.to(logits.dtype)
    per_label = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return per_label.mean(dim=-1)


def _soft_binary_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Binary cross entropy against the teacher's probabilities, times temperature squared.

    Summed over labels, as if each were a classification of its own with two classes.
    """
    from torch.nn import functional

    teacher_probabilities = (teacher / temperature).sigmoid()
    per_label = functional.binary_cross_entropy_with_logits(
        student / temperature, teacher_probabilities, reduction="none"
    )
    return per_label.sum(dim=-1) * temperature**2


def _base_rates(targets: Rows) -> NDArray[np.float32]:
    """The log odds of each label among the training rows.

    With a probability of 0.5 for all labels, the first hundreds of steps would only reduce the
    probabilities, because most labels do not apply (docs/log.md).
    """
    rates = (targets.sum(axis=0) + 0.5) / (len(targets) + 1.0)
    log_odds: NDArray[np.float32] = np.log(rates / (1 - rates)).astype(np.float32)
    return log_odds


TASKS: Mapping[Task, TaskType] = {
    "classification": TaskType(
        name="classification",
        traits=TASK_TRAITS["classification"],
        problem_type="single_label_classification",
        row_metric="accuracy",
        targets=_class_numbers,
        predict=_most_probable,
        activation=softmax,
        resample=resample_classes,
        chance_problem=chance_problem_of_classes,
        label_loss=_cross_entropy,
        teacher_loss=_soft_cross_entropy,
        initial_bias=None,
    ),
    "regression": TaskType(
        name="regression",
        traits=TASK_TRAITS["regression"],
        problem_type="regression",
        row_metric=None,
        targets=_numbers,
        predict=_first_output,
        activation=_unchanged,
        resample=resample_numbers,
        chance_problem=chance_problem_of_numbers,
        label_loss=_squared_error,
        teacher_loss=_squared_error_of_outputs,
        initial_bias=None,
    ),
    "multilabel": TaskType(
        name="multilabel",
        traits=TASK_TRAITS["multilabel"],
        problem_type="multi_label_classification",
        row_metric="exact_match",
        targets=multi_hot,
        predict=_sets,
        activation=sigmoid,
        resample=resample_label_sets,
        chance_problem=chance_problem_of_label_sets,
        label_loss=_binary_cross_entropy,
        teacher_loss=_soft_binary_cross_entropy,
        initial_bias=_base_rates,
    ),
}
