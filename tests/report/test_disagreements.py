"""Classes, confusions, reliability and disagreements against values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from factory.data.dataset import Split
from factory.evaluation.metrics import LabelScore
from factory.evaluation.thresholds import fixed_thresholds
from factory.report.errors import (
    class_disagreements,
    class_rows,
    confused_pairs,
    confusion_among,
    label_disagreements,
    most_confused,
    number_disagreements,
    reliability,
)

LABELS = ("a", "b", "c")
TEACHER = [[9, 1, 0], [0, 10, 0], [0, 0, 5]]
STUDENT = [[7, 1, 2], [0, 10, 0], [3, 0, 2]]


def figures(f1: float, recall: float, support: int = 10) -> LabelScore:
    return LabelScore(precision=0.5, recall=recall, f1=f1, support=support)


def test_class_rows_start_with_the_largest_loss() -> None:
    teacher = {"a": figures(0.8, 0.7), "b": figures(0.9, 0.9), "c": figures(0.5, 0.5, 0)}
    student = {"a": figures(0.85, 0.6), "b": figures(0.6, 0.8), "c": figures(0.1, 0.1, 0)}
    rows = class_rows(teacher, student)
    assert [row.label for row in rows] == ["b", "a"]  # c does not occur
    assert [round(row.lost, 6) for row in rows] == [0.3, -0.05]
    assert (rows[0].teacher_recall, rows[0].student_recall, rows[0].support) == (0.9, 0.8, 10)


def test_confused_pairs_are_sorted_by_the_errors_of_the_student() -> None:
    pairs = confused_pairs(TEACHER, STUDENT, LABELS)
    assert [(pair.true, pair.predicted, pair.teacher, pair.student) for pair in pairs] == [
        ("c", "a", 0, 3),
        ("a", "c", 0, 2),
        ("a", "b", 1, 1),
    ]
    assert len(confused_pairs(TEACHER, STUDENT, LABELS, shown=2)) == 2


def test_classes_of_the_confusion_table() -> None:
    """Of thirteen classes; the student takes 3 for 7 four times, the teacher 11 for 12 once."""
    assert most_confused(TEACHER, STUDENT) == [0, 1, 2]
    student, teacher = np.diag([5] * 13), np.diag([5] * 13)
    student[3, 7] = 4
    teacher[11, 12] = 1
    assert most_confused(teacher.tolist(), student.tolist(), shown=2) == [3, 7]
    assert most_confused(teacher.tolist(), student.tolist(), shown=4) == [3, 7, 11, 12]
    shown = confusion_among(STUDENT, LABELS, [0, 1])
    assert shown.labels == ["a", "b"]
    assert shown.counts == [[7, 1, 2], [0, 10, 0]]


def test_reliability_over_two_bins() -> None:
    """Lower bin: 0.2 and 0.4, none right, gap 0.3; upper bin: 0.6, 0.8 and 1.0, two right."""
    confidences = np.array([0.2, 0.4, 0.6, 0.8, 1.0])
    correct = np.array([False, False, True, True, False])
    measured = reliability(confidences, correct, bins=2)
    lower, upper = measured.bins
    assert (lower.rows, upper.rows) == (2, 3)
    assert (lower.confidence, lower.correct) == (pytest.approx(0.3), 0)
    assert (upper.confidence, upper.correct) == (pytest.approx(0.8), pytest.approx(2 / 3))
    assert measured.error == pytest.approx(2 / 5 * 0.3 + 3 / 5 * (0.8 - 2 / 3))
    assert measured.mean_confidence == pytest.approx(0.6)
    assert measured.share_correct == pytest.approx(0.4)


def test_an_edge_belongs_to_the_bin_below_and_zero_to_the_first() -> None:
    measured = reliability(np.array([0.0, 0.25, 0.5, 1.0]), np.ones(4, dtype=bool), bins=4)
    assert [one.rows for one in measured.bins] == [2, 1, 0, 1]
    assert measured.bins[2].confidence is None
    assert [one.lower for one in measured.bins] == [0.0, 0.25, 0.5, 0.75]


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60),
    st.integers(1, 20),
)
def test_reliability_counts_every_row_and_its_error_is_bounded(
    rows: list[tuple[float, bool]], bins: int
) -> None:
    confidences = np.array([row[0] for row in rows])
    correct = np.array([row[1] for row in rows])
    measured = reliability(confidences, correct, bins)
    assert sum(one.rows for one in measured.bins) == len(rows)
    assert abs(measured.mean_confidence - measured.share_correct) <= measured.error + 1e-12
    assert measured.error <= 1


def logits(probabilities: list[list[float]]) -> NDArray[np.float32]:
    """Logits with these probabilities as softmax."""
    return np.log(np.array(probabilities)).astype(np.float32)


def odds(probabilities: list[list[float]]) -> NDArray[np.float32]:
    """Logits with these probabilities as sigmoid."""
    given = np.array(probabilities)
    return np.log(given / (1 - given)).astype(np.float32)


def test_class_disagreements_are_sorted_by_the_less_confident_model() -> None:
    """Row 1: 0.99 against 0.55; row 2: 0.7 against 0.8; row 0 agrees, row 3 has a third truth."""
    split = Split("dev", ["same", "one sure", "both sure", "both wrong"], None, [0, 0, 1, 2])
    teacher = logits([[0.9, 0.05, 0.05], [0.99, 0.005, 0.005], [0.7, 0.2, 0.1], [0.6, 0.3, 0.1]])
    student = logits([[0.8, 0.1, 0.1], [0.25, 0.55, 0.2], [0.1, 0.8, 0.1], [0.3, 0.6, 0.1]])
    rows = class_disagreements(teacher, student, split, ("x", "y", "z"), 20)
    assert [row.text for row in rows] == ["both sure", "both wrong", "one sure"]
    assert [row.right for row in rows] == ["student", "neither", "teacher"]
    first = rows[0]
    assert (first.true, first.teacher, first.student) == ("y", "x", "y")
    assert (first.teacher_probability, first.student_probability) == (
        pytest.approx(0.7),
        pytest.approx(0.8),
    )
    assert [row.text for row in class_disagreements(teacher, student, split, "xyz", 1)] == [
        "both sure"
    ]


def test_pairs_show_both_texts() -> None:
    split = Split("dev", ["one"], ["other"], [0])
    (row,) = class_disagreements(logits([[0.9, 0.1]]), logits([[0.2, 0.8]]), split, "xy", 5)
    assert (row.text, row.text_pair) == ("one", "other")


def test_label_disagreements_show_the_most_confident_label() -> None:
    """Threshold 0.5: row 0 differs in y (0.9 and 0.2), row 1 less confidently in x."""
    split = Split("dev", ["sure", "unsure", "alike"], None, [(0, 1), (), (0,)])
    teacher = odds([[0.9, 0.9], [0.6, 0.1], [0.9, 0.1]])
    student = odds([[0.8, 0.2], [0.4, 0.1], [0.7, 0.3]])
    both = (fixed_thresholds(0.5, 2), fixed_thresholds(0.5, 2))
    rows = label_disagreements(teacher, student, split, ("x", "y"), both, 9)
    assert [row.text for row in rows] == ["sure", "unsure"]
    assert (rows[0].teacher, rows[0].student, rows[0].true) == ("y", "not y", "x, y")
    assert (rows[0].right, rows[1].right, rows[1].true) == ("teacher", "student", "none")
    assert rows[0].student_probability == pytest.approx(0.2)


def test_confidence_is_relative_to_the_threshold() -> None:
    """0.3 is 1/8 of the way from 0.2 to 1; the student's 0.1 is halfway from 0.2 to 0."""
    split = Split("dev", ["a", "b"], None, [(0,), (0,)])
    low = (fixed_thresholds(0.2, 1), fixed_thresholds(0.2, 1))
    rows = label_disagreements(odds([[0.3], [0.6]]), odds([[0.1], [0.1]]), split, "x", low, 9)
    assert [row.text for row in rows] == ["b", "a"]
    assert {row.teacher for row in rows} == {"x"}


def test_number_disagreements_start_with_the_largest_difference() -> None:
    split = Split("dev", ["near", "far", "middle"], None, [1.0, 2.0, 3.0])
    teacher = np.array([[1.0], [2.5], [3.0]], dtype=np.float32)
    student = np.array([[1.1], [5.0], [1.5]], dtype=np.float32)
    rows = number_disagreements(teacher, student, split, 2)
    assert [row.text for row in rows] == ["far", "middle"]
    assert (rows[0].teacher, rows[0].student, rows[0].true) == ("2.50", "5.00", "2.00")
    assert rows[0].right == "teacher"
    assert rows[0].teacher_probability is None
