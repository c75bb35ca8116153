"""Which models are better than chance."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from factory.data.dataset import Dataset, Split
from factory.errors import TeacherError, TrainingError
from factory.evaluation.chance import best_constant_micro_f1, margin_over_chance
from factory.evaluation.evaluate import check_student, evaluate_logits
from factory.evaluation.metrics import Score
from factory.evaluation.results import Evaluation
from factory.models.tasks import TASKS
from factory.teacher.fine_tune import check_teacher

SPAM = ("ham", "spam")
# 500 messages, 3 % spam
TARGETS = np.array([0] * 485 + [1] * 15)


def dataset_of(targets: NDArray[Any], labels: tuple[str, ...] = SPAM) -> Dataset:
    split = Split("dev", ["x"] * len(targets), None, targets.tolist())
    task = "regression" if targets.dtype.kind == "f" else "classification"
    return Dataset(task, labels, split, split, None)  # type: ignore[arg-type]


def predictions(misses: int, false_alarms: int) -> NDArray[np.int64]:
    """Predictions of the spam data with some spam rows missed and some false alarms."""
    predicted = TARGETS.copy()
    predicted[485 : 485 + misses] = 0
    predicted[:false_alarms] = 1
    return predicted


def scored(targets: NDArray[Any], predicted: NDArray[Any], classes: int = 2) -> Evaluation:
    """An evaluation on dev."""
    data = dataset_of(targets, tuple(f"class {number}" for number in range(classes)))
    logits = np.eye(classes)[predicted] if targets.dtype.kind == "i" else predicted[:, None]
    return evaluate_logits(logits.astype(np.float32), data.dev, data.labels)


def chance_problem(evaluation: Evaluation, data: Dataset, min_margin: float) -> str | None:
    return TASKS[data.task].chance_problem(evaluation, data, min_margin)


def check(predicted: NDArray[np.int64], targets: NDArray[np.int64] = TARGETS) -> None:
    """Check a teacher with these predictions at the recipe's default margin."""
    check_teacher(
        {"fine_tuned_here": True, "dev": scored(targets, predicted).to_facts()},
        dataset_of(targets),
        0.05,
    )


@pytest.mark.parametrize(
    ("misses", "false_alarms"),
    [
        (0, 0),
        (3, 2),  # accuracy 0.990
        (8, 1),
        (1, 24),  # trained with class weights: accuracy 0.950, below the majority's 0.970
    ],
)
def test_a_good_spam_teacher_passes(misses: int, false_alarms: int) -> None:
    check(predictions(misses, false_alarms))


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        (np.full(500, 0), "predicts 'ham' for every row of dev"),
        (np.full(500, 1), "predicts 'spam' for every row of dev"),
        (1 - predictions(3, 2), "is no better than chance on dev"),
        (1 - predictions(1, 24), "is no better than chance on dev"),
        # 80 % of the spam found, with half of the ham as false alarms
        (predictions(3, 242), r"mean recall over 2 labels is 0\.651"),
    ],
)
def test_a_teacher_no_better_than_chance_fails(predicted: NDArray[np.int64], message: str) -> None:
    with pytest.raises(TeacherError, match=message):
        check(predicted)


def test_the_message_has_the_numbers_and_advice() -> None:
    with pytest.raises(TeacherError) as caught:
        check(predictions(14, 20))
    message = str(caught.value)
    # recalls 465/485 and 1/15; accuracy 466/500, 0.038 below 485/500
    assert "its mean recall over 2 labels is 0.513, guessing gives 0.500" in message
    assert "its accuracy is 0.932, always predicting the most frequent label gives 0.970" in message
    assert "required >= 0.05 (teacher.min_margin)" in message
    assert "teacher.learning_rate" in message


def test_margins_by_hand() -> None:
    # recalls 0.9 and 0.6; accuracy 0.84, the frequent class has 0.8: gains 0.04 and 0.25
    assert margin_over_chance(np.array([[72, 8], [8, 12]])) == pytest.approx(0.25)
    # accuracy 0.75 below 0.8: recalls 0.75 and 0.75, gain 0.25 less 0.05
    assert margin_over_chance(np.array([[60, 20], [5, 15]])) == pytest.approx(0.20)
    # a long tail: accuracy 80 % against 40 %, though most classes are never predicted
    tail = np.diag([40, 40, *[0] * 20])
    tail[2:, 0] = 1
    assert margin_over_chance(tail) == pytest.approx(0.40)
    # a class that does not occur does not count
    assert margin_over_chance(np.array([[5, 5, 0], [5, 5, 0], [0, 0, 0]])) == pytest.approx(0.0)


@settings(max_examples=25)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=6), st.data())
def test_predictions_that_ignore_the_text_gain_nothing(
    sizes: list[int], data: st.DataObject
) -> None:
    """Each class is predicted in the same proportions."""
    shares = data.draw(
        st.lists(st.integers(0, 9), min_size=len(sizes), max_size=len(sizes)).filter(any)
    )
    assert margin_over_chance(np.outer(sizes, shares)) <= 1e-12


def test_the_margin_itself_passes_on_balanced_classes() -> None:
    targets = np.repeat([0, 1, 2, 3, 4], 20)
    labels = tuple("abcde")

    def reason(hits: int) -> str | None:
        predicted = (targets + 1) % 5
        rows = [20 * number + row for row in range(20) for number in range(5)][:hits]
        predicted[rows] = targets[rows]
        return chance_problem(scored(targets, predicted, 5), dataset_of(targets, labels), 0.05)

    assert reason(25) is None  # 0.25 is 0.05 above 1 / 5
    assert "the gain over chance is 0.040, required >= 0.05" in str(reason(24))


def test_a_dev_set_of_one_label() -> None:
    targets = np.zeros(8, dtype=np.int64)
    reason = chance_problem(scored(targets, targets), dataset_of(targets), 0.05)
    assert reason is not None
    assert "every row of dev has the label 'ham'" in reason


# the student


def test_a_student_of_classes() -> None:
    data = dataset_of(TARGETS)
    check_student(scored(TARGETS, predictions(10, 2)), data)
    check_student(scored(TARGETS, predictions(4, 24)), data)
    with pytest.raises(TrainingError, match=r"the student predicts 'ham' for every row of dev.*"):
        check_student(scored(TARGETS, np.zeros(500, dtype=np.int64)), data)
    with pytest.raises(TrainingError, match=r"required > 0\. Distillation did not work"):
        check_student(scored(TARGETS, 1 - predictions(3, 2)), data)
    even = np.array([0, 0, 1, 1])
    with pytest.raises(TrainingError, match=r"gain over chance is 0\.000, required > 0"):
        check_student(scored(even, np.array([0, 1, 0, 1])), dataset_of(even))


NUMBERS = np.array([0.5, 1.0, 2.5, 3.0, 4.5])


def test_a_student_of_numbers() -> None:
    data = dataset_of(NUMBERS, ("value",))
    check_student(scored(NUMBERS, NUMBERS * 2), data)
    with pytest.raises(TrainingError, match=r"Spearman correlation is -1\.000, not above 0"):
        check_student(scored(NUMBERS, -NUMBERS), data)
    for constant in (np.full(5, 2.1), 2.1 + np.arange(5) * 2e-7):
        with pytest.raises(TrainingError, match="predicts the same value for every row of dev"):
            check_student(scored(NUMBERS, constant), data)


def test_a_student_of_label_sets() -> None:
    split = Split("dev", ["x"] * 4, None, [(0,), (0, 1), (0,), (2,)])
    data = Dataset("multilabel", ("a", "b", "c"), split, split, None)

    def sets(micro_f1: float) -> Evaluation:
        return Evaluation("dev", 4, {"micro_f1": Score(micro_f1, 0.0, 1.0)}, {}, [])

    # always predicting a: 3 of 4 predictions right, 3 of 5 labels found, F1 = 2 * 3 / (4 + 5)
    check_student(sets(0.67), data)
    with pytest.raises(TrainingError, match=r"its micro F1 is 0\.667, .* gives 0\.667"):
        check_student(sets(2 * 3 / 9), data)


@settings(max_examples=25)
@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=6))
def test_no_other_constant_set_is_better(rows: list[list[bool]]) -> None:
    targets = np.array(rows)
    values = []
    for chosen in itertools.product([False, True], repeat=4):
        hits = int(targets[:, list(chosen)].sum())
        values.append(2 * hits / max(1, sum(chosen) * len(targets) + int(targets.sum())))
    assert best_constant_micro_f1(targets) == pytest.approx(max(values))
