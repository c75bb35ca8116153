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
    """How often each model takes rows of one class for another."""

    true: str
    predicted: str
    teacher: int
    student: int


@dataclass(frozen=True, slots=True)
class Confusion:
    """The counts among some classes; the last column counts predictions of other classes.

    Args:
        numbers: of the chosen classes, in the order of the data.
        counts: rows of the true class by predicted class, with one more column for the others.
    """

    numbers: list[int]
    labels: list[str]
    counts: list[list[int]]


def class_rows(teacher: PerClass, student: PerClass) -> list[ClassRow]:
    """The classes that occur in the split, most F1 lost first; ties by name."""
    rows = [
        ClassRow(
            label,
            int(score.support),
            teacher[label].recall,
            score.recall,
            teacher[label].f1,
            score.f1,
        )
        for label, score in student.items()
        if score.support > 0
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
    mistakes = {
        number: sum(
            counts[number][other] + counts[other][number]
            for counts in (teacher, student)
            for other in classes
            if other != number
        )
        for number in classes
    }
    if len(classes) <= ALL_SHOWN:
        return list(classes)
    ranked = sorted(classes, key=lambda number: (-mistakes[number], number))
    return sorted(ranked[:shown])


def confusion_among(counts: Counts, labels: Sequence[str], numbers: Sequence[int]) -> Confusion:
    """The confusion matrix of the chosen classes."""
    rows = []
    for row in numbers:
        chosen = [counts[row][column] for column in numbers]
        rows.append([*chosen, sum(counts[row]) - sum(chosen)])
    return Confusion(list(numbers), [labels[number] for number in numbers], rows)


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The predictions whose probability is above `lower` and at most `upper`.

    Args:
        confidence: mean probability of these predictions; None for an empty bin.
        correct: share of them that are right.
    """

    lower: float
    upper: float
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
        lower, upper = place / bins, (place + 1) / bins
        if rows == 0:
            result.append(ReliabilityBin(lower, upper, 0, None, None))
            continue
        mean, right = float(confidences[inside].mean()), float(correct[inside].mean())
        error += rows / len(confidences) * abs(right - mean)
        result.append(ReliabilityBin(lower, upper, rows, mean, right))
    return Reliability(result, error, float(confidences.mean()), float(correct.mean()))


def class_reliability(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> Reliability:
    """The reliability of the predicted class's probability.

    Shapes:
        logits: (rows, labels); targets: (rows,) class numbers
    """
    probabilities = softmax(logits)
    predicted = logits.argmax(axis=1)
    return reliability(probabilities.max(axis=1), predicted == targets)


def label_set_reliability(
    probabilities: NDArray[np.float64], applies: NDArray[np.bool_]
) -> Reliability:
    """The reliability of every label's probability on every row.

    Shapes:
        probabilities, applies: (rows, labels)
    """
    return reliability(probabilities.reshape(-1), applies.reshape(-1))


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One row with the true label, and each model's prediction with its probability.

    Args:
        text_pair: the second text of a pair.
        teacher_probability, student_probability: of the prediction; None for regression.
        right: the model that is right, or closer to the true value: teacher, student or neither.
    """

    text: str
    text_pair: str | None
    true: str
    teacher: str
    student: str
    teacher_probability: float | None
    student_probability: float | None
    right: str


def class_disagreements(
    teacher: NDArray[np.float32],
    student: NDArray[np.float32],
    split: Split,
    labels: Sequence[str],
    shown: int,
) -> list[Disagreement]:
    """Rows with different predictions, most confident disagreements first.

    A disagreement is as confident as the less confident of the two models.

    Shapes:
        teacher, student: (rows, labels) logits
    """
    predicted = teacher.argmax(axis=1), student.argmax(axis=1)
    probabilities = softmax(teacher).max(axis=1), softmax(student).max(axis=1)
    rows = np.flatnonzero(predicted[0] != predicted[1])
    targets = [row[0] for row in labels_of_rows(split)]
    result = []
    for row in _largest_first(rows, np.minimum(*probabilities), shown):
        right = "neither"
        if targets[row] in (predicted[0][row], predicted[1][row]):
            right = "teacher" if targets[row] == predicted[0][row] else "student"
        result.append(
            Disagreement(
                *_texts(split, row),
                true=labels[targets[row]],
                teacher=labels[predicted[0][row]],
                student=labels[predicted[1][row]],
                teacher_probability=float(probabilities[0][row]),
                student_probability=float(probabilities[1][row]),
                right=right,
            )
        )
    return result


def label_disagreements(
    teacher: NDArray[np.float32],
    student: NDArray[np.float32],
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
    for own, limits in zip(
        probabilities, (np.array(one.values) for one in thresholds), strict=True
    ):
        above = (own - limits) / np.maximum(1 - limits, 1e-12)
        below = (limits - own) / np.maximum(limits, 1e-12)
        applies.append(own >= limits)
        confidences.append(np.where(own >= limits, above, below))
    confidence = np.where(applies[0] != applies[1], np.minimum(*confidences), -1.0)
    rows = np.flatnonzero(confidence.max(axis=1) >= 0)
    targets = labels_of_rows(split)
    result = []
    for row in _largest_first(rows, confidence.max(axis=1), shown):
        label = int(confidence[row].argmax())
        by_teacher = bool(applies[0][row, label])
        negated = f"not {labels[label]}"
        result.append(
            Disagreement(
                *_texts(split, row),
                true=", ".join(labels[number] for number in targets[row]) or "none",
                teacher=labels[label] if by_teacher else negated,
                student=negated if by_teacher else labels[label],
                teacher_probability=float(probabilities[0][row, label]),
                student_probability=float(probabilities[1][row, label]),
                right="teacher" if by_teacher == (label in targets[row]) else "student",
            )
        )
    return result


def number_disagreements(
    teacher: NDArray[np.float32], student: NDArray[np.float32], split: Split, shown: int
) -> list[Disagreement]:
    """The rows with the largest difference between the two predictions.

    Shapes:
        teacher, student: (rows, 1)
    """
    differences = np.abs(teacher[:, 0].astype(np.float64) - student[:, 0].astype(np.float64))
    result = []
    for row in _largest_first(np.arange(len(differences)), differences, shown):
        target, values = split.targets[row], (float(teacher[row, 0]), float(student[row, 0]))
        assert isinstance(target, float), "the split of a regression"
        closer = abs(values[0] - target) <= abs(values[1] - target)
        result.append(
            Disagreement(
                *_texts(split, row),
                true=f"{target:.2f}",
                teacher=f"{values[0]:.2f}",
                student=f"{values[1]:.2f}",
                teacher_probability=None,
                student_probability=None,
                right="teacher" if closer else "student",
            )
        )
    return result


def _largest_first(rows: NDArray[np.int64], values: NDArray[np.float64], shown: int) -> list[int]:
    order = rows[np.argsort(-values[rows], kind="stable")]
    return [int(row) for row in order[:shown]]


def _texts(split: Split, row: int) -> tuple[str, str | None]:
    return split.texts[row], None if split.text_pairs is None else split.text_pairs[row]
