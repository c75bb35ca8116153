"""Where the student loses: classes by what they lost, and who is taken for whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from factory.evaluation.metrics import LabelScore

PerClass = Mapping[str, LabelScore]
Counts = Sequence[Sequence[int]]

CONFUSED_SHOWN = 10
ALL_SHOWN = 12
PAIRS_SHOWN = 12


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One class under both models; `lost` is the teacher's F1 minus the student's."""

    label: str
    support: int
    teacher_recall: float
    student_recall: float
    teacher_f1: float
    student_f1: float

    @property
    def lost(self) -> float:
        """F1 lost on the way from teacher to student; negative where the student is better."""
        return self.teacher_f1 - self.student_f1


@dataclass(frozen=True, slots=True)
class ConfusedPair:
    """How often rows of one class are given another."""

    true: str
    predicted: str
    teacher: int
    student: int


@dataclass(frozen=True, slots=True)
class Confusion:
    """The counts among some classes; what goes to any other class is in the last column.

    Args:
        numbers: of the chosen classes in the data's order.
        counts: rows of the true class by predicted class, with one more column for the others.
    """

    numbers: list[int]
    labels: list[str]
    counts: list[list[int]]


def class_rows(teacher: PerClass, student: PerClass) -> list[ClassRow]:
    """The classes that occur in the split, those that lost most F1 first; ties by name."""
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
    """The commonest mistakes of the student, then of the teacher."""
    pairs = [
        ConfusedPair(true, predicted, teacher[row][column], student[row][column])
        for row, true in enumerate(labels)
        for column, predicted in enumerate(labels)
        if row != column and (teacher[row][column] or student[row][column])
    ]
    pairs.sort(key=lambda pair: (-pair.student, -pair.teacher, pair.true, pair.predicted))
    return pairs[:shown]


def most_confused(teacher: Counts, student: Counts, shown: int = CONFUSED_SHOWN) -> list[int]:
    """The classes most often in a mistake of either model, in the data's order; of twelve all.

    A mistake counts for the class it belongs to and for the class that was answered.
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
    """The part of a confusion between the chosen classes."""
    rows = []
    for row in numbers:
        chosen = [counts[row][column] for column in numbers]
        rows.append([*chosen, sum(counts[row]) - sum(chosen)])
    return Confusion(list(numbers), [labels[number] for number in numbers], rows)
