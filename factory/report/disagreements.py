"""The rows on which teacher and student differ although both are sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from factory.data.dataset import Split, labels_of_rows
from factory.evaluation.thresholds import Thresholds
from factory.report.reliability import softmax
from serving.predictor import sigmoid


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One row: the text, what is true, and what each model says with which probability.

    Args:
        text_pair: the second text of a pair.
        teacher_sure, student_sure: the probability of the answer; for numbers, None.
        right: teacher, student or neither; empty where nobody can be simply right.
    """

    text: str
    text_pair: str | None
    true: str
    teacher: str
    student: str
    teacher_sure: float | None
    student_sure: float | None
    right: str


def class_disagreements(
    teacher: NDArray[np.float32],
    student: NDArray[np.float32],
    split: Split,
    labels: Sequence[str],
    shown: int,
) -> list[Disagreement]:
    """Rows with different answers; first those where the less sure of the two is surest.

    Shapes:
        teacher, student: (rows, labels) logits
    """
    taught, learned = softmax(teacher), softmax(student)
    answers, others = teacher.argmax(axis=1), student.argmax(axis=1)
    sure, other_sure = taught.max(axis=1), learned.max(axis=1)
    rows = np.flatnonzero(answers != others)
    order = _surest_first(rows, np.minimum(sure, other_sure), shown)
    targets = [row[0] for row in labels_of_rows(split)]
    return [
        Disagreement(
            *_texts(split, row),
            true=labels[targets[row]],
            teacher=labels[answers[row]],
            student=labels[others[row]],
            teacher_sure=float(sure[row]),
            student_sure=float(other_sure[row]),
            right=_right(targets[row], int(answers[row]), int(others[row])),
        )
        for row in order
    ]


def label_disagreements(
    teacher: NDArray[np.float32],
    student: NDArray[np.float32],
    split: Split,
    labels: Sequence[str],
    thresholds: tuple[Thresholds, Thresholds],
    shown: int,
) -> list[Disagreement]:
    """Rows on which one label is given by one model alone, the surest such label of each row.

    A model is as sure of a decision as its probability lies beyond its threshold, as a share of
    the room there: 1 at probability 0 or 1.

    Shapes:
        teacher, student: (rows, labels) logits
    """
    taught, learned = sigmoid(teacher), sigmoid(student)
    gives = taught >= np.array(thresholds[0].values)
    learned_gives = learned >= np.array(thresholds[1].values)
    sure = np.minimum(_beyond(taught, thresholds[0]), _beyond(learned, thresholds[1]))
    sure = np.where(gives != learned_gives, sure, -1.0)
    rows = np.flatnonzero(sure.max(axis=1) >= 0)
    wanted = labels_of_rows(split)
    result = []
    for row in _surest_first(rows, sure.max(axis=1), shown):
        label = int(sure[row].argmax())
        true = label in wanted[row]
        result.append(
            Disagreement(
                *_texts(split, row),
                true=", ".join(labels[number] for number in wanted[row]) or "none",
                teacher=_given(labels[label], bool(gives[row, label])),
                student=_given(labels[label], bool(learned_gives[row, label])),
                teacher_sure=float(taught[row, label]),
                student_sure=float(learned[row, label]),
                right="teacher" if bool(gives[row, label]) == true else "student",
            )
        )
    return result


def number_disagreements(
    teacher: NDArray[np.float32], student: NDArray[np.float32], split: Split, shown: int
) -> list[Disagreement]:
    """The rows with the largest difference between the two numbers.

    Shapes:
        teacher, student: (rows, 1)
    """
    taught, learned = teacher[:, 0].astype(np.float64), student[:, 0].astype(np.float64)
    apart = np.abs(taught - learned)
    result = []
    for row in _surest_first(np.arange(len(apart)), apart, shown):
        target = split.targets[row]
        assert isinstance(target, float), "the split of a regression"
        closer = abs(taught[row] - target) <= abs(learned[row] - target)
        result.append(
            Disagreement(
                *_texts(split, row),
                true=f"{target:.2f}",
                teacher=f"{taught[row]:.2f}",
                student=f"{learned[row]:.2f}",
                teacher_sure=None,
                student_sure=None,
                right="teacher" if closer else "student",
            )
        )
    return result


def _surest_first(rows: NDArray[np.int64], sure: NDArray[np.float64], shown: int) -> list[int]:
    order = rows[np.argsort(-sure[rows], kind="stable")]
    return [int(row) for row in order[:shown]]


def _texts(split: Split, row: int) -> tuple[str, str | None]:
    return split.texts[row], None if split.text_pairs is None else split.text_pairs[row]


def _right(target: int, teacher: int, student: int) -> str:
    if target == teacher:
        return "teacher"
    return "student" if target == student else "neither"


def _given(label: str, given: bool) -> str:
    return label if given else f"not {label}"


def _beyond(probabilities: NDArray[np.float64], thresholds: Thresholds) -> NDArray[np.float64]:
    """How far each probability lies beyond its label's threshold, as a share of the room there."""
    limits = np.array(thresholds.values)
    above = (probabilities - limits) / np.maximum(1 - limits, 1e-12)
    below = (limits - probabilities) / np.maximum(limits, 1e-12)
    beyond: NDArray[np.float64] = np.where(probabilities >= limits, above, below)
    return beyond
