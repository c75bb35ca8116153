"""Teachers of other architectures: loaded, fine-tuned, and adopted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.non_bert_models import (
    byte_level_tokenizer,
    save_foreigner,
    tiny_distilbert,
    tiny_roberta,
)
from helpers.tiny_models import (
    LABELS,
    MAX_LENGTH,
    accuracy,
    tiny_bert,
    tiny_dataset,
    tiny_tokenizer,
)
from helpers.tiny_teachers import SMALL, adopted, source_of, tuned

from factory.data.dataset import Dataset
from factory.errors import TeacherError
from factory.models.classifier import (
    TorchClassifier,
    load_torch_classifier,
    longest_input,
    takes_token_types,
)
from factory.teacher.fine_tune import make_teacher
from factory.teacher.load import load_pretrained

# Checkpoints of tiny epochs come within one second of each other.
pytestmark = pytest.mark.filterwarnings("ignore:mtime may not be reliable:UserWarning")


def folder_of(kind: str, directory: Path, labels: tuple[str, ...] = LABELS) -> Path:
    if kind == "roberta":
        return save_foreigner(tiny_roberta(labels), byte_level_tokenizer(), directory)
    tokenizer = tiny_tokenizer()
    return save_foreigner(tiny_distilbert(labels, len(tokenizer)), tokenizer, directory)


@pytest.mark.parametrize("kind", ["roberta", "distilbert"])
def test_logits_of_pairs_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    """One at a time, through the tokenizer's own call, against batches of ours."""
    model = load_torch_classifier(folder_of(kind, tmp_path), MAX_LENGTH)
    pairs = [("the parcel is broken", "my lamp"), ("thanks", "the shop was great and a size")]
    found = model.logits(pairs)
    assert not takes_token_types(model.model)
    for row, pair in enumerate(pairs):
        encoded = model.tokenizer(*pair, return_tensors="pt")
        encoded.pop("token_type_ids", None)
        with torch.no_grad():
            expected = model.model(**encoded).logits[0].numpy()
        np.testing.assert_allclose(found[row], expected, atol=1e-5)


def test_token_types_are_for_models_that_have_more_than_one() -> None:
    assert takes_token_types(tiny_bert())
    assert not takes_token_types(tiny_bert(type_vocab_size=1))


def test_positions_of_roberta_start_behind_the_padding() -> None:
    model = tiny_roberta()
    assert (model.config.max_position_embeddings, longest_input(model)) == (34, 32)
    ids = torch.full((1, 33), 5)
    model(input_ids=ids[:, :32], attention_mask=torch.ones(1, 32))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=ids, attention_mask=torch.ones(1, 33))
    assert longest_input(tiny_bert()) == 32
    assert longest_input(tiny_distilbert(LABELS, 40)) == 32


def test_more_tokens_than_roberta_reads_are_refused(tmp_path: Path) -> None:
    folder = folder_of("roberta", tmp_path / "model")
    arguments: Any = (tmp_path, source_of(folder), adopted(), SMALL)
    with pytest.raises(TeacherError, match=r"data\.max_length is 33, but .* at most 32 tokens"):
        make_teacher(*arguments, 33, "cpu", only_bert=False)


@pytest.mark.parametrize("kind", ["roberta", "distilbert"])
def test_it_is_fine_tuned_and_saved(kind: str, tmp_path: Path) -> None:
    dataset: Dataset = tiny_dataset()
    folder = folder_of(kind, tmp_path / "base", ("LABEL_0", "LABEL_1"))
    settings = tuned(epochs=6.0, learning_rate=5e-3)
    arguments: Any = (tmp_path, source_of(folder), settings, dataset, MAX_LENGTH, "cpu")
    facts = make_teacher(*arguments, only_bert=False)
    assert (facts["layers"], facts["hidden"]) == (2, 24)
    saved = load_torch_classifier(tmp_path / "model", MAX_LENGTH)
    assert saved.model.config.model_type == kind
    assert accuracy(saved, dataset.dev) > 0.8


@pytest.mark.parametrize("kind", ["roberta", "distilbert"])
def test_an_adopted_teachers_outputs_are_put_into_the_datas_order(
    kind: str, tmp_path: Path
) -> None:
    folder = folder_of(kind, tmp_path, ("glad", "angry", "calm"))
    original = load_torch_classifier(folder, MAX_LENGTH)
    model, tokenizer = load_pretrained(source_of(folder), adopted(), SMALL, only_bert=False)
    texts = SMALL.dev.inputs()
    reordered = TorchClassifier(model, tokenizer, MAX_LENGTH).logits(texts)
    np.testing.assert_allclose(reordered, original.logits(texts)[:, [1, 2, 0]], atol=1e-6)
    assert model.config.id2label == dict(enumerate(LABELS))


@pytest.mark.parametrize(
    ("change", "told"),
    [({"pad_token": None}, "no padding token"), ({"padding_side": "left"}, "pads on the left")],
)
def test_tokenizers_that_make_no_batch_padded_on_the_right_are_refused(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    folder = folder_of("roberta", tmp_path)
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**settings, **change}), encoding="utf-8")
    (folder / "special_tokens_map.json").unlink()
    with pytest.raises(TeacherError, match=told):
        load_pretrained(source_of(folder), adopted(), SMALL, only_bert=False)
