"""Neurons that are removed for good: what stays the same, what gets smaller, who stands in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_models import (
    MAX_LENGTH,
    save_tiny,
    tiny_bert,
    tiny_classifier,
    tiny_split,
    tiny_tokenizer,
)
from transformers import AutoModelForSequenceClassification

from factory.distill import prune
from factory.distill.prune import keep_neurons, strongest
from factory.models.classifier import load_torch_classifier
from factory.models.encoding import EncodedRows, encode_inputs

TEXTS = tiny_split("train", 40, seed=3).texts
OTHERS = tiny_split("dev", 20, seed=4).texts


@pytest.fixture
def rows() -> EncodedRows:
    return encode_inputs(tiny_tokenizer(), TEXTS, MAX_LENGTH)


def positions(*layers: list[int]) -> np.ndarray:
    return np.array(layers, dtype=np.int64)


def test_the_strongest_in_their_own_order() -> None:
    importance = np.array([[0.1, 0.9, 0.5, 0.9], [3.0, 1.0, 1.0, 1.0]])
    assert strongest(importance, 2).tolist() == [[1, 3], [0, 1]]
    assert strongest(importance, 3).tolist() == [[1, 2, 3], [0, 1, 2]]


def test_neurons_that_pass_nothing_on_are_not_missed(rows: EncodedRows) -> None:
    student = tiny_bert(intermediate_size=10)
    silent = positions([0, 3, 9], [1, 2, 3], [4, 5, 8])
    for layer, gone in zip(student.bert.encoder.layer, silent, strict=True):
        layer.output.dense.weight.data[:, gone] = 0
    before = tiny_classifier(student).logits(OTHERS)
    kept = np.stack([np.setdiff1d(np.arange(10), gone) for gone in silent])
    layers = list(student.bert.encoder.layer)
    firsts = [layer.intermediate.dense.weight.clone() for layer in layers]
    keep_neurons(student, kept, rows, "cpu")
    np.testing.assert_allclose(tiny_classifier(student).logits(OTHERS), before, atol=1e-5)
    for layer, first, chosen in zip(layers, firsts, kept, strict=True):
        assert torch.equal(layer.intermediate.dense.weight, first[chosen])
        assert layer.intermediate.dense.bias.shape == (7,)
        assert layer.output.dense.weight.shape == (24, 7)


def test_what_is_left_is_a_plain_smaller_bert(tmp_path: Path, rows: EncodedRows) -> None:
    student = tiny_bert(intermediate_size=10)
    size = sum(parameter.numel() for parameter in student.parameters())
    keep_neurons(student, positions([0, 1, 2], [3, 4, 5], [6, 7, 8]), rows, "cpu")
    # 7 neurons less in each of 3 layers, with 24 weights in, 24 out, and a bias
    assert size - sum(one.numel() for one in student.parameters()) == 3 * 7 * 49
    save_tiny(student, tmp_path)
    opened, report = AutoModelForSequenceClassification.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(report.values())
    assert opened.config.intermediate_size == 3
    assert type(opened).__name__ == "BertForSequenceClassification"
    expected = tiny_classifier(student).logits(OTHERS)
    found = load_torch_classifier(tmp_path, MAX_LENGTH).logits(OTHERS)
    np.testing.assert_array_equal(found, expected)


def test_a_neurons_twin_takes_over_its_work(rows: EncodedRows) -> None:
    """Neuron 1 is made 0's copy: without it, 0 has to pass on what both did."""
    student = tiny_bert(num_hidden_layers=1, intermediate_size=4)
    layer = student.bert.encoder.layer[0]
    first, second = layer.intermediate.dense, layer.output.dense
    first.weight.data[1], first.bias.data[1] = first.weight.data[0], first.bias.data[0]
    wanted = (second.weight.data[:, 0] + second.weight.data[:, 1]).clone()
    before = tiny_classifier(student).logits(OTHERS)
    keep_neurons(student, positions([0, 2, 3]), rows, "cpu")
    # the ridge pulls a little towards the old weights
    weight = student.bert.encoder.layer[0].output.dense.weight[:, 0]
    np.testing.assert_allclose(weight.detach(), wanted.detach(), atol=0.05)
    np.testing.assert_allclose(tiny_classifier(student).logits(OTHERS), before, atol=0.02)


def test_refitted_is_nearer_than_cut(rows: EncodedRows, monkeypatch: pytest.MonkeyPatch) -> None:
    def drift(ridge: float) -> float:
        student: Any = tiny_bert(intermediate_size=24)
        before = tiny_classifier(student).logits(OTHERS)
        monkeypatch.setattr(prune, "REFIT_RIDGE", ridge)
        keep_neurons(student, positions(*[[*range(12)]] * 3), rows, "cpu")
        return float(np.abs(tiny_classifier(student).logits(OTHERS) - before).mean())

    assert drift(prune.REFIT_RIDGE) < 0.8 * drift(1e12)  # so strong a prior leaves the old ones
