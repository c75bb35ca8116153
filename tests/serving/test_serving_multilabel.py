"""Bundles whose labels do not exclude each other: schema, decisions, protocol."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from serving.asking import Asked
from serving.bundle import MANIFEST_NAME, read_manifest
from serving.errors import BundleError
from serving.predictor import Prediction, Predictor, sigmoid
from serving.protocol import read_request, write_response
from serving.settings import Settings

MakeBundle = Callable[..., Path]
THRESHOLDS = [0.3, 0.5, 0.625]


@pytest.fixture
def directory(make_bundle: MakeBundle) -> Path:
    return make_bundle(task="multilabel", thresholds=THRESHOLDS)


def edit(directory: Path, **changes: Any) -> None:
    """Change top-level fields of a manifest on disk; ... removes one."""
    path = directory / MANIFEST_NAME
    fields = json.loads(path.read_text("utf-8")) | changes
    kept = {key: value for key, value in fields.items() if value is not ...}
    path.write_text(json.dumps(kept), "utf-8")


def test_a_manifest_without_the_field_is_still_read(bundle: Path, make_bundle: MakeBundle) -> None:
    """As every bundle of the other tasks was written before there were thresholds."""
    assert "thresholds" not in json.loads((bundle / MANIFEST_NAME).read_text("utf-8"))
    assert Predictor.open(bundle).thresholds is None
    assert b"thresholds" not in msgspec.json.encode(read_manifest(bundle))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"thresholds": ...}, "multilabel has 3 thresholds, got None"),
        ({"thresholds": [0.5, 0.5]}, "multilabel has 3 thresholds, got 2"),
        ({"thresholds": [0.5, 0.5, 1.5]}, "<= 1.0"),
        ({"thresholds": [0.5, -0.1, 0.5]}, ">= 0.0"),
        ({"thresholds": [0.5, "high", 0.5]}, "float"),
        ({"task": "classification"}, "classification has no thresholds, got 3"),
        ({"labels": ["one"], "thresholds": [0.5]}, "multilabel has two labels or more"),
    ],
)
def test_thresholds_that_do_not_fit(directory: Path, changes: Any, message: str) -> None:
    edit(directory, **changes)
    with pytest.raises(BundleError, match=message):
        read_manifest(directory)


def test_every_label_is_decided_by_itself(directory: Path) -> None:
    predictor = Predictor.open(directory)
    texts = ["a good film", "not very bad", "the", "fine fine fine"]
    logits = predictor.logits(texts).astype(np.float64)
    answers = predictor.predict(texts)
    for row, answer in zip(logits, answers, strict=True):
        probabilities = [1 / (1 + np.exp(-value)) for value in row]
        assert answer.scores == pytest.approx(probabilities, abs=1e-12)
        assert answer.applies == tuple(
            p >= t for p, t in zip(probabilities, THRESHOLDS, strict=True)
        )
    assert len({answer.applies for answer in answers}) > 1


def test_a_score_on_its_threshold_applies(directory: Path) -> None:
    text = ["a good film"]
    exact = list(Predictor.open(directory).predict(text)[0].scores)
    edit(directory, thresholds=exact)
    assert Predictor.open(directory).predict(text)[0].applies == (True, True, True)
    edit(directory, thresholds=np.nextafter(exact, 1).tolist())
    assert Predictor.open(directory).predict(text)[0].applies == (False, False, False)


def test_sigmoid_of_any_size() -> None:
    logits = np.array([[0.0, np.log(3), -np.log(3), 1000.0, -1000.0]], dtype=np.float32)
    np.testing.assert_allclose(sigmoid(logits), [[0.5, 0.75, 0.25, 1.0, 0.0]], atol=1e-7)
    assert sigmoid(logits).dtype == np.float64


def test_the_answer_names_the_labels_that_apply_best_first(directory: Path) -> None:
    predictor = Predictor.open(directory)
    predictions = [
        Prediction((0.4, 0.1, 0.9), 4, False, (0.0,), (True, False, True)),
        Prediction((0.2, 0.4, 0.6), 3, True, (0.0,), (False, False, False)),
    ]
    both, none = json.loads(write_response(predictor, predictions, Asked([])))["predictions"]
    assert both == {
        "labels": ["positive", "negative"],
        "scores": [
            {"label": "positive", "score": 0.9},
            {"label": "negative", "score": 0.4},
            {"label": "neutral", "score": 0.1},
        ],
        "tokens": 4,
        "truncated": False,
    }
    assert none["labels"] == []
    # top_k cuts the scores, never the decision
    (few, _) = json.loads(write_response(predictor, predictions, Asked([], 1)))["predictions"]
    assert [item["label"] for item in few["scores"]] == ["positive"]
    assert few["labels"] == ["positive", "negative"]


def test_top_k_is_accepted(directory: Path) -> None:
    request = read_request(b'{"text": "good", "top_k": 2}', Predictor.open(directory), Settings())
    assert request.top_k == 2
