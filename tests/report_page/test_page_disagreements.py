"""Which rows are shown, in which order, and who was right."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from factory.data.dataset import Split
from factory.evaluation.thresholds import fixed_thresholds
from factory.report.disagreements import (
    class_disagreements,
    label_disagreements,
    number_disagreements,
)


def logits(probabilities: list[list[float]]) -> NDArray[np.float32]:
    """Outputs whose softmax is what is given."""
    return np.log(np.array(probabilities)).astype(np.float32)


def odds(probabilities: list[list[float]]) -> NDArray[np.float32]:
    """Outputs whose sigmoid is what is given."""
    given = np.array(probabilities)
    return np.log(given / (1 - given)).astype(np.float32)


def test_the_less_sure_of_the_two_decides_the_order() -> None:
    """Row 1: 0.99 against 0.55; row 2: 0.7 against 0.8; row 0 agrees, row 3 has a third truth."""
    split = Split("dev", ["same", "one sure", "both sure", "both wrong"], None, [0, 0, 1, 2])
    teacher = logits([[0.9, 0.05, 0.05], [0.99, 0.005, 0.005], [0.7, 0.2, 0.1], [0.6, 0.3, 0.1]])
    student = logits([[0.8, 0.1, 0.1], [0.25, 0.55, 0.2], [0.1, 0.8, 0.1], [0.3, 0.6, 0.1]])
    rows = class_disagreements(teacher, student, split, ("x", "y", "z"), 20)
    assert [row.text for row in rows] == ["both sure", "both wrong", "one sure"]
    assert [row.right for row in rows] == ["student", "neither", "teacher"]
    first = rows[0]
    assert (first.true, first.teacher, first.student) == ("y", "x", "y")
    assert (first.teacher_sure, first.student_sure) == (pytest.approx(0.7), pytest.approx(0.8))
    assert [row.text for row in class_disagreements(teacher, student, split, "xyz", 1)] == [
        "both sure"
    ]


def test_pairs_keep_their_second_text() -> None:
    split = Split("dev", ["one"], ["other"], [0])
    (row,) = class_disagreements(logits([[0.9, 0.1]]), logits([[0.2, 0.8]]), split, "xy", 5)
    assert (row.text, row.text_pair) == ("one", "other")


def test_of_several_labels_the_surest_difference_is_shown() -> None:
    """Threshold 0.5: row 0 differs in y (0.9 against 0.2), row 1 less surely in x."""
    split = Split("dev", ["sure", "unsure", "alike"], None, [(0, 1), (), (0,)])
    teacher = odds([[0.9, 0.9], [0.6, 0.1], [0.9, 0.1]])
    student = odds([[0.8, 0.2], [0.4, 0.1], [0.7, 0.3]])
    both = (fixed_thresholds(0.5, 2), fixed_thresholds(0.5, 2))
    rows = label_disagreements(teacher, student, split, ("x", "y"), both, 9)
    assert [row.text for row in rows] == ["sure", "unsure"]
    assert (rows[0].teacher, rows[0].student, rows[0].true) == ("y", "not y", "x, y")
    assert (rows[0].right, rows[1].right, rows[1].true) == ("teacher", "student", "none")
    assert rows[0].student_sure == pytest.approx(0.2)


def test_a_low_threshold_makes_a_low_probability_a_yes() -> None:
    """0.3 is 1/8 of the way from 0.2 to 1; the student's 0.1 is halfway from 0.2 to 0."""
    split = Split("dev", ["a", "b"], None, [(0,), (0,)])
    low = (fixed_thresholds(0.2, 1), fixed_thresholds(0.2, 1))
    rows = label_disagreements(odds([[0.3], [0.6]]), odds([[0.1], [0.1]]), split, "x", low, 9)
    assert [row.text for row in rows] == ["b", "a"]
    assert {row.teacher for row in rows} == {"x"}


def test_numbers_furthest_apart_come_first() -> None:
    split = Split("dev", ["near", "far", "middle"], None, [1.0, 2.0, 3.0])
    teacher = np.array([[1.0], [2.5], [3.0]], dtype=np.float32)
    student = np.array([[1.1], [5.0], [1.5]], dtype=np.float32)
    rows = number_disagreements(teacher, student, split, 2)
    assert [row.text for row in rows] == ["far", "middle"]
    assert (rows[0].teacher, rows[0].student, rows[0].true) == ("2.50", "5.00", "2.00")
    assert rows[0].right == "teacher"
    assert rows[0].teacher_sure is None
