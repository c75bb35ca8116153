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
from factory.evaluation.evaluate import evaluate, evaluate_logits
from factory.evaluation.results import Evaluation, evaluations_from_facts

LABELS = ("no", "yes")


@dataclass
class FixedClassifier:
    """A classifier with a table of outputs."""

    outputs: dict[Any, list[float]]
    inputs: list[Any] = field(default_factory=list)

    def logits(self, inputs: Sequence[str] | Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Outputs in the order of the inputs."""
        self.inputs += inputs
        return np.array([self.outputs[text] for text in inputs], dtype=np.float32)


def test_predictions_keep_the_order_of_the_rows() -> None:
    split = Split("dev", ["d", "a", "c", "b"], None, [1, 0, 1, 0])
    classifier = FixedClassifier(
        {"a": [2.0, 1.0], "b": [0.1, 0.2], "c": [-3.0, -1.0], "d": [0.0, 9.0]}
    )
    evaluation = evaluate(classifier, split, LABELS)
    assert classifier.inputs == ["d", "a", "c", "b"]
    assert evaluation.predicted.tolist() == [1, 0, 1, 1]
    assert (evaluation.split, evaluation.rows) == ("dev", 4)
    assert evaluation.scores["accuracy"].value == 3 / 4
    assert evaluation.confusion == [[1, 1], [0, 2]]
    assert evaluation.per_class["no"].recall == 1 / 2
    assert evaluation.per_class["yes"].precision == pytest.approx(2 / 3)


def test_pairs_with_numbers_are_scored_as_regression() -> None:
    split = Split("dev", ["a", "b", "c", "d"], ["A", "B", "C", "D"], [1.0, 2.0, 3.0, 4.0])
    outputs = {("a", "A"): [0.5], ("b", "B"): [0.25], ("c", "C"): [4.0], ("d", "D"): [8.0]}
    evaluation = evaluate(FixedClassifier(outputs), split, ("value",))
    assert set(evaluation.scores) == {"pearson", "spearman"}
    assert evaluation.predicted.tolist() == [0.5, 0.25, 4.0, 8.0]
    assert evaluation.predicted.dtype == np.float64
    # ranks 2 1 3 4 against 1 2 3 4: 1 - 6 * (1 + 1) / (4 * 15)
    assert evaluation.scores["spearman"].value == pytest.approx(0.8)
    assert dict(evaluation.per_class) == {}
    assert evaluation.confusion == []


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


@pytest.mark.parametrize(
    ("targets", "labels"),
    [([1, 0, 1], LABELS), ([(0,), (), (0, 1)], LABELS), ([0.5, 1.0, 2.5], ("value",))],
)
def test_an_evaluation_is_restored_from_its_facts(targets: Any, labels: tuple[str, ...]) -> None:
    split = Split("dev", ["a", "b", "c"], None, targets)
    found = evaluate_logits(np.eye(3, len(labels), dtype=np.float32), split, labels)
    facts = json.loads(json.dumps(found.to_facts()))
    restored = evaluations_from_facts({"student": {"dev": facts}})["student"]["dev"]
    assert restored == Evaluation(
        "dev", 3, found.scores, found.per_class, found.confusion, found.thresholds
    )
    assert restored.to_facts() == facts


def test_f1_is_of_the_last_label_or_the_positive_one() -> None:
    split = Split("dev", ["a", "b", "c", "d"], None, [1, 0, 1, 1])
    logits = np.array([[0, 1], [0, 1], [1, 0], [0, 1]], dtype=np.float32)

    def f1(*positive: str) -> float:
        return evaluate_logits(logits, split, LABELS, None, *positive).scores["f1"].value

    # yes: 2 hits of 3 true and 3 predicted; no: none of 1 true and 1 predicted
    assert f1() == f1("yes") == pytest.approx(4 / 6)
    assert f1("no") == 0.0
    classifier = FixedClassifier(dict(zip("abcd", logits.tolist(), strict=True)))
    assert evaluate(classifier, split, LABELS, positive_label="no").scores["f1"].value == 0.0
    three = Split("dev", ["a", "b", "c"], None, [0, 1, 2])
    assert "f1" not in evaluate_logits(np.eye(3, dtype=np.float32), three, ("a", "b", "c")).scores
