"""Texts to logits, against the model called by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_models import LABELS, MAX_LENGTH, open_tiny, save_tiny, tiny_bert, tiny_classifier

from factory.data.dataset import Dataset
from factory.models import classifier as classifier_module
from factory.models.classifier import forward_logits
from factory.models.encoding import collate, encode_inputs

TEXTS = ["late", "my shoe is late and awful", "i love it", "when is the size in colour red"]


def by_hand(model: torch.nn.Module, text: str | tuple[str, str]) -> list[float]:
    """One text alone, encoded and run without the code under test."""
    from helpers.tiny_models import tiny_tokenizer

    parts = (text,) if isinstance(text, str) else text
    encoded = tiny_tokenizer()(*parts, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
    with torch.no_grad():
        logits: list[float] = model(**encoded).logits[0].tolist()
    return logits


def test_logits_come_in_input_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier_module, "INFERENCE_BATCH_SIZE", 2)
    model = tiny_bert()
    logits = tiny_classifier(model).logits(TEXTS)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, [by_hand(model, text) for text in TEXTS], atol=1e-5)
    assert np.abs(logits[0] - logits[1]).max() > 1e-2


def test_pairs() -> None:
    model = tiny_bert()
    pairs = [("late", "my shoe"), ("my shoe", "late")]
    logits = tiny_classifier(model).logits(pairs)
    np.testing.assert_allclose(logits, [by_hand(model, pair) for pair in pairs], atol=1e-5)
    assert np.abs(logits[0] - logits[1]).max() > 1e-3


def test_dropout_is_off_even_after_training() -> None:
    model = tiny_bert(hidden_dropout_prob=0.5).train()
    classifier = tiny_classifier(model)
    assert np.array_equal(classifier.logits(TEXTS), classifier.logits(TEXTS))
    assert not model.training


def test_no_texts_are_no_logits() -> None:
    assert tiny_classifier(tiny_bert()).logits([]).shape == (0, len(LABELS))


def test_forward_logits_keep_gradients() -> None:
    classifier = tiny_classifier(tiny_bert().half())
    rows = encode_inputs(classifier.tokenizer, TEXTS, MAX_LENGTH)
    logits = forward_logits(classifier.model, collate(rows, np.arange(4), "cpu"))
    assert logits.dtype == torch.float32
    assert logits.requires_grad


def test_a_saved_model_is_the_same_model(tmp_path: Path, dataset: Dataset) -> None:
    model = tiny_bert()
    loaded = open_tiny(save_tiny(model, tmp_path))
    texts = dataset.dev.inputs()
    np.testing.assert_array_equal(loaded.logits(texts), tiny_classifier(model).logits(texts))
    assert not loaded.model.training
    assert loaded.model.config.id2label == dict(enumerate(LABELS))
