"""A classifier and a split to an evaluation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from factory.data.dataset import Split
from factory.evaluation.evaluate import (
    Evaluation,
    evaluate,
    evaluate_logits,
    evaluations_from_facts,
)

LABELS = ("no", "yes")


@dataclass
class LookUp:
    """A classifier that knows its answers by heart."""

    answers: dict[Any, list[float]]
    asked: list[Any] = field(default_factory=list)

    def logits(self, inputs: Sequence[str] | Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """The known answers, in the order of the questions."""
        self.asked += inputs
        return np.array([self.answers[text] for text in inputs], dtype=np.float32)


def test_predictions_keep_the_order_of_the_rows() -> None:
    split = Split("dev", ["d", "a", "c", "b"], None, [1, 0, 1, 0])
    classifier = LookUp({"a": [2.0, 1.0], "b": [0.1, 0.2], "c": [-3.0, -1.0], "d": [0.0, 9.0]})
    evaluation = evaluate(classifier, split, LABELS)
    assert classifier.asked == ["d", "a", "c", "b"]
    assert evaluation.predicted.tolist() == [1, 0, 1, 1]
    assert (evaluation.split, evaluation.rows) == ("dev", 4)
    assert evaluation.scores["accuracy"].value == 3 / 4
    assert evaluation.confusion == [[1, 1], [0, 2]]
    assert evaluation.per_class["no"].recall == 1 / 2
    assert evaluation.per_class["yes"].precision == pytest.approx(2 / 3)


def test_pairs_are_asked_as_pairs() -> None:
    split = Split("test", ["q1", "q2"], ["a1", "a2"], [0, 1])
    classifier = LookUp({("q1", "a1"): [1.0, 0.0], ("q2", "a2"): [0.0, 1.0]})
    evaluation = evaluate(classifier, split, LABELS)
    assert classifier.asked == [("q1", "a1"), ("q2", "a2")]
    assert evaluation.scores["accuracy"].value == 1.0


def test_number_targets_are_scored_as_regression() -> None:
    split = Split("dev", ["a", "b", "c", "d"], None, [1.0, 2.0, 3.0, 4.0])
    classifier = LookUp({"a": [0.5], "b": [0.25], "c": [4.0], "d": [8.0]})
    evaluation = evaluate(classifier, split, ("value",))
    assert set(evaluation.scores) == {"pearson", "spearman"}
    assert evaluation.predicted.tolist() == [0.5, 0.25, 4.0, 8.0]
    assert evaluation.predicted.dtype == np.float64
    # ranks 2 1 3 4 against 1 2 3 4: 1 - 6 * (1 + 1) / (4 * 15)
    assert evaluation.scores["spearman"].value == pytest.approx(0.8)
    assert dict(evaluation.per_class) == {}
    assert evaluation.confusion == []


def test_outputs_that_are_there_are_scored_like_a_classifiers() -> None:
    split = Split("dev", ["a", "b"], None, [1, 0])
    logits = np.array([[0.0, 1.0], [0.0, 1.0]], dtype=np.float32)
    direct = evaluate_logits(logits, split, LABELS)
    asked = evaluate(LookUp({"a": [0.0, 1.0], "b": [0.0, 1.0]}), split, LABELS)
    assert direct.to_facts() == asked.to_facts()


def test_classification_facts_are_json_and_complete() -> None:
    split = Split("dev", ["a", "b", "c"], None, [1, 0, 1])
    logits = np.array([[0.0, 1.0], [0.0, 1.0], [2.0, 1.0]], dtype=np.float32)
    evaluation = evaluate_logits(logits, split, LABELS)
    facts = evaluation.to_facts()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert set(facts) == {"split", "rows", "scores", "per_class", "confusion"}
    assert set(facts["scores"]) == {"accuracy", "balanced_accuracy", "macro_f1", "mcc", "f1"}
    assert set(facts["scores"]["accuracy"]) == {"value", "low", "high"}
    assert facts["confusion"] == [[0, 1], [1, 1]]
    assert facts["per_class"]["yes"]["support"] == 2.0


def test_regression_facts_are_json() -> None:
    split = Split("dev", ["a", "b", "c"], None, [1.0, 2.0, 4.0])
    facts = evaluate_logits(
        np.array([[1], [3], [2]], dtype=np.float32), split, ("value",)
    ).to_facts()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert facts["scores"]["spearman"]["value"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("targets", "labels"),
    [([1, 0, 1], LABELS), ([(0,), (), (0, 1)], LABELS), ([0.5, 1.0, 2.5], ("value",))],
)
def test_an_evaluation_comes_back_out_of_its_facts(targets: Any, labels: tuple[str, ...]) -> None:
    split = Split("dev", ["a", "b", "c"], None, targets)
    found = evaluate_logits(np.eye(3, len(labels), dtype=np.float32), split, labels)
    facts = json.loads(json.dumps(found.to_facts()))
    restored = evaluations_from_facts({"student": {"dev": facts}})["student"]["dev"]
    assert restored == Evaluation(
        "dev", 3, found.scores, found.per_class, found.confusion, found.thresholds
    )
    assert restored.to_facts() == facts


def test_f1_is_about_the_last_of_two_labels_or_the_one_named() -> None:
    split = Split("dev", ["a", "b", "c", "d"], None, [1, 0, 1, 1])
    logits = np.array([[0, 1], [0, 1], [1, 0], [0, 1]], dtype=np.float32)

    def f1(*positive: str) -> float:
        return evaluate_logits(logits, split, LABELS, None, *positive).scores["f1"].value

    # yes: 2 hits of 3 true and 3 answered; no: none of 1 true and 1 answered
    assert f1() == f1("yes") == pytest.approx(4 / 6)
    assert f1("no") == 0.0
    classifier = LookUp(dict(zip("abcd", logits.tolist(), strict=True)))
    assert evaluate(classifier, split, LABELS, positive_label="no").scores["f1"].value == 0.0


def test_no_class_of_three_is_the_positive_one() -> None:
    split = Split("dev", ["a", "b", "c"], None, [0, 1, 2])
    scores = evaluate_logits(np.eye(3, dtype=np.float32), split, ("a", "b", "c")).scores
    assert "f1" not in scores
    assert scores["balanced_accuracy"].value == 1.0
