"""Errors of teacher and student: by class, confusions, calibration, rows on which they disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from factory.data.dataset import Split, labels_of_rows
from factory.evaluation.metrics import LabelScore
from factory.evaluation.thresholds import Thresholds
from serving.predictor import sigmoid, softmax

PerClass = Mapping[str, LabelScore]
Counts = Sequence[Sequence[int]]
Logits = NDArray[np.float32]

CONFUSED_SHOWN = 10
ALL_SHOWN = 12
PAIRS_SHOWN = 12
BINS = 15


@dataclass(frozen=True, slots=True)
class ClassRow:
    """Recall and F1 of one class under both models."""

    label: str
    support: int
    teacher_recall: float
    student_recall: float
    teacher_f1: float
    student_f1: float

    @property
    def lost(self) -> float:
        """The teacher's F1 minus the student's; negative where the student is better."""
        return self.teacher_f1 - self.student_f1


@dataclass(frozen=True, slots=True)
class ConfusedPair:
    """How often each model confuses one class with another."""

    true: str
    predicted: str
    teacher: int
    student: int


@dataclass(frozen=True, slots=True)
class Confusion:
    """Rows of some classes by predicted class; the last column counts all other classes."""

    labels: list[str]
    counts: list[list[int]]


def class_rows(teacher: PerClass, student: PerClass) -> list[ClassRow]:
    """The classes that occur in the split, most F1 lost first; ties by name."""
    rows = [
        ClassRow(
            label, int(one.support), teacher[label].recall, one.recall, teacher[label].f1, one.f1
        )
        for label, one in student.items()
        if one.support > 0
    ]
    return sorted(rows, key=lambda row: (-row.lost, row.label))


def confused_pairs(
    teacher: Counts, student: Counts, labels: Sequence[str], shown: int = PAIRS_SHOWN
) -> list[ConfusedPair]:
    """The most frequent confusions of the student, then of the teacher."""
    pairs = [
        ConfusedPair(true, predicted, teacher[row][column], student[row][column])
        for row, true in enumerate(labels)
        for column, predicted in enumerate(labels)
        if row != column and (teacher[row][column] or student[row][column])
    ]
    pairs.sort(key=lambda pair: (-pair.student, -pair.teacher, pair.true, pair.predicted))
    return pairs[:shown]


def most_confused(teacher: Counts, student: Counts, shown: int = CONFUSED_SHOWN) -> list[int]:
    """The classes in most errors of either model, in the order of the data; all of up to twelve.

    An error counts for the true class and for the predicted class.
    """
    classes = range(len(student))
    if len(classes) <= ALL_SHOWN:
        return list(classes)
    errors = np.array(teacher) + np.array(student)
    np.fill_diagonal(errors, 0)
    totals = errors.sum(axis=0) + errors.sum(axis=1)
    return sorted(sorted(classes, key=lambda number: (-totals[number], number))[:shown])


def confusion_among(counts: Counts, labels: Sequence[str], numbers: Sequence[int]) -> Confusion:
    """The confusion matrix of the chosen classes."""
    rows = []
    for row in numbers:
        chosen = [counts[row][column] for column in numbers]
        rows.append([*chosen, sum(counts[row]) - sum(chosen)])
    return Confusion([labels[number] for number in numbers], rows)


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The predictions whose probability is above `lower` and at most the next bin's `lower`.

    Args:
        confidence: mean probability of these predictions; None for an empty bin.
        correct: share of them that are right.
    """

    lower: float
    rows: int
    confidence: float | None
    correct: float | None


@dataclass(frozen=True, slots=True)
class Reliability:
    """Bins of equal width from 0 to 1, and the expected calibration error over them."""

    bins: list[ReliabilityBin]
    error: float
    mean_confidence: float
    share_correct: float


def reliability(
    confidences: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = BINS
) -> Reliability:
    """Expected calibration error over bins of equal width (Guo et al. 2017, equation 3).

    A bin holds the probabilities above its lower and up to its upper edge; the first also holds 0.

    Shapes:
        confidences, correct: (predictions,)
    """
    places = np.clip(np.ceil(confidences * bins).astype(np.int64) - 1, 0, bins - 1)
    result = []
    error = 0.0
    for place in range(bins):
        inside = places == place
        rows = int(inside.sum())
        if rows == 0:
            result.append(ReliabilityBin(place / bins, 0, None, None))
            continue
        mean, right = float(confidences[inside].mean()), float(correct[inside].mean())
        error += rows / len(confidences) * abs(right - mean)
        result.append(ReliabilityBin(place / bins, rows, mean, right))
    return Reliability(result, error, float(confidences.mean()), float(correct.mean()))


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One row with the true label, and each model's prediction with its probability.

    Args:
        text_pair: the second text of a pair.
        right: the model that is right, or closer to the true value: teacher, student or neither.
        teacher_probability, student_probability: of the prediction; None for regression.
    """

    text: str
    text_pair: str | None
    true: str
    teacher: str
    student: str
    right: str
    teacher_probability: float | None = None
    student_probability: float | None = None


def class_disagreements(
    teacher: Logits, student: Logits, split: Split, labels: Sequence[str], shown: int
) -> list[Disagreement]:
    """Rows with different predictions, most confident disagreements first.

    A disagreement is as confident as the less confident of the two models.

    Shapes:
        teacher, student: (rows, labels) logits
    """
    one, other = teacher.argmax(axis=1), student.argmax(axis=1)
    probabilities = softmax(teacher).max(axis=1), softmax(student).max(axis=1)
    confidence = np.where(one != other, np.minimum(*probabilities), -1.0)
    targets = [row[0] for row in labels_of_rows(split)]
    result = []
    for row in _largest_first(confidence, shown):
        right = "neither"
        if targets[row] in (one[row], other[row]):
            right = "teacher" if targets[row] == one[row] else "student"
        result.append(
            Disagreement(
                *_texts(split, row),
                true=labels[targets[row]],
                teacher=labels[one[row]],
                student=labels[other[row]],
                right=right,
                teacher_probability=float(probabilities[0][row]),
                student_probability=float(probabilities[1][row]),
            )
        )
    return result


def label_disagreements(
    teacher: Logits,
    student: Logits,
    split: Split,
    labels: Sequence[str],
    thresholds: tuple[Thresholds, Thresholds],
    shown: int,
) -> list[Disagreement]:
    """Rows with a label that only one model predicts, most confident disagreements first.

    The confidence of a decision is the distance of the probability from the threshold, divided by
    the largest possible distance: 1 at probability 0 or 1. Of each row, the most confident such
    label is shown.

    Shapes:
        teacher, student: (rows, labels) logits
    """
    probabilities = sigmoid(teacher), sigmoid(student)
    applies, confidences = [], []
    for own, decided in zip(probabilities, thresholds, strict=True):
        limits = np.array(decided.values)
        above = (own - limits) / np.maximum(1 - limits, 1e-12)
        below = (limits - own) / np.maximum(limits, 1e-12)
        applies.append(own >= limits)
        confidences.append(np.where(own >= limits, above, below))
    confidence = np.where(applies[0] != applies[1], np.minimum(*confidences), -1.0)
    targets = labels_of_rows(split)
    result = []
    for row in _largest_first(confidence.max(axis=1), shown):
        label = int(confidence[row].argmax())
        by_teacher = bool(applies[0][row, label])
        shown_labels = (labels[label], f"not {labels[label]}")
        result.append(
            Disagreement(
                *_texts(split, row),
                true=", ".join(labels[number] for number in targets[row]) or "none",
                teacher=shown_labels[not by_teacher],
                student=shown_labels[by_teacher],
                right="teacher" if by_teacher == (label in targets[row]) else "student",
                teacher_probability=float(probabilities[0][row, label]),
                student_probability=float(probabilities[1][row, label]),
            )
        )
    return result


def number_disagreements(
    teacher: Logits, student: Logits, split: Split, shown: int
) -> list[Disagreement]:
    """The rows with the largest difference between the two predictions.

    Shapes:
        teacher, student: (rows, 1)
    """
    values = teacher[:, 0].astype(np.float64), student[:, 0].astype(np.float64)
    targets = np.array(split.targets, dtype=np.float64)
    closer = np.abs(values[0] - targets) <= np.abs(values[1] - targets)
    return [
        Disagreement(
            *_texts(split, row),
            true=f"{targets[row]:.2f}",
            teacher=f"{values[0][row]:.2f}",
            student=f"{values[1][row]:.2f}",
            right="teacher" if closer[row] else "student",
        )
        for row in _largest_first(np.abs(values[0] - values[1]), shown)
    ]


def _largest_first(values: NDArray[np.float64], shown: int) -> list[int]:
    """The rows with the largest values, without negative ones."""
    order = np.argsort(-values, kind="stable")[:shown]
    return [int(row) for row in order if values[row] >= 0]


def _texts(split: Split, row: int) -> tuple[str, str | None]:
    return split.texts[row], None if split.text_pairs is None else split.text_pairs[row]
