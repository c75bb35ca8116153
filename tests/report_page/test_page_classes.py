"""Losses per class and confusion on counts that can be checked by eye."""

from __future__ import annotations

from factory.evaluation.metrics import LabelScore
from factory.report.classes import (
    class_rows,
    confused_pairs,
    confusion_among,
    most_confused,
)

LABELS = ("a", "b", "c")
TEACHER = [[9, 1, 0], [0, 10, 0], [0, 0, 5]]
STUDENT = [[7, 1, 2], [0, 10, 0], [3, 0, 2]]


def figures(f1: float, recall: float, support: int = 10) -> LabelScore:
    return LabelScore(precision=0.5, recall=recall, f1=f1, support=support)


def test_the_class_that_lost_most_stands_first_and_absent_ones_are_left_out() -> None:
    teacher = {"a": figures(0.8, 0.7), "b": figures(0.9, 0.9), "c": figures(0.5, 0.5, 0)}
    student = {"a": figures(0.85, 0.6), "b": figures(0.6, 0.8), "c": figures(0.1, 0.1, 0)}
    rows = class_rows(teacher, student)
    assert [row.label for row in rows] == ["b", "a"]
    assert [round(row.lost, 6) for row in rows] == [0.3, -0.05]
    assert (rows[0].teacher_recall, rows[0].student_recall, rows[0].support) == (0.9, 0.8, 10)


def test_pairs_are_ordered_by_the_students_mistakes() -> None:
    pairs = confused_pairs(TEACHER, STUDENT, LABELS)
    assert [(pair.true, pair.predicted, pair.teacher, pair.student) for pair in pairs] == [
        ("c", "a", 0, 3),
        ("a", "c", 0, 2),
        ("a", "b", 1, 1),
    ]
    assert len(confused_pairs(TEACHER, STUDENT, LABELS, shown=2)) == 2


def test_few_classes_are_all_shown() -> None:
    assert most_confused(TEACHER, STUDENT) == [0, 1, 2]


def test_of_many_classes_those_in_most_mistakes_are_shown() -> None:
    """Thirteen classes; 3 is taken for 7 often, 11 for 12 once by the teacher."""
    right = [[5 if row == column else 0 for column in range(13)] for row in range(13)]
    student, teacher = [list(row) for row in right], [list(row) for row in right]
    student[3][7] = 4
    teacher[11][12] = 1
    assert most_confused(teacher, student, shown=2) == [3, 7]
    assert most_confused(teacher, student, shown=4) == [3, 7, 11, 12]


def test_what_goes_elsewhere_is_counted_in_the_last_column() -> None:
    shown = confusion_among(STUDENT, LABELS, [0, 1])
    assert shown.labels == ["a", "b"]
    assert shown.counts == [[7, 1, 2], [0, 10, 0]]
    assert [sum(row) for row in shown.counts] == [10, 10]
