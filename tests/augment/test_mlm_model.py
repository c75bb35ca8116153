"""Opening a masked language model, and each way in which a checkpoint is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_mlms import save_mlm, source_of, tiny_mlm
from tiny_models import save_tiny, tiny_bert, tiny_tokenizer
from transformers import CanineTokenizer, DistilBertConfig, DistilBertForMaskedLM

from factory.augment.mlm_model import load_mlm
from factory.errors import RecipeError

KEY = "augment.mlm"


def refusal(folder: Path) -> str:
    with pytest.raises(RecipeError) as caught:
        load_mlm(source_of(folder), KEY, "cpu")
    assert caught.value.headline == KEY
    assert len(caught.value.problems) == 1
    return caught.value.problems[0]


def rewrite(folder: Path, dropped: str) -> None:
    """Leave weights out of a saved model."""
    file = folder / "model.safetensors"
    kept = {name: w for name, w in load_file(file).items() if not name.startswith(dropped)}
    save_file(kept, file, metadata={"format": "pt"})


def test_a_model_with_its_head_computes_what_was_saved(tmp_path: Path) -> None:
    model = tiny_mlm(hidden_dropout_prob=0.5)
    opened = load_mlm(source_of(save_tiny(model, tmp_path)), KEY, "cpu")
    assert not opened.model.training
    assert opened.device == "cpu"
    rows = opened.tokenizer(["the parcel is [MASK]"], return_tensors="pt")
    assert int((rows["input_ids"] == opened.tokenizer.mask_token_id).sum()) == 1
    with torch.no_grad():
        assert torch.equal(opened.model(**rows).logits, model(**rows).logits)


def test_an_untied_decoder_bias_may_be_missing(tmp_path: Path) -> None:
    """Older checkpoints hold the output bias once."""
    folder = save_mlm(tmp_path)
    rewrite(folder, "cls.predictions.decoder")
    load_mlm(source_of(folder), KEY, "cpu")


def test_a_classifier_is_refused_with_two_ways_out(tmp_path: Path) -> None:
    told = refusal(save_tiny(tiny_bert(), tmp_path))
    assert "cls.predictions.transform.dense.weight" in told
    for way_out in ("google-bert/bert-base-uncased", "remove augment.mlm"):
        assert way_out in told


def test_half_a_head_is_refused(tmp_path: Path) -> None:
    folder = save_mlm(tmp_path)
    rewrite(folder, "cls.predictions.transform.LayerNorm")
    told = refusal(folder)
    assert "cls.predictions.transform.LayerNorm.weight" in told
    assert "dense" not in told


def test_a_body_with_holes_is_refused(tmp_path: Path) -> None:
    folder = save_mlm(tmp_path)
    rewrite(folder, "bert.encoder.layer.1")
    assert "not a complete BERT: bert.encoder.layer.1" in refusal(folder)


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    config = DistilBertConfig(vocab_size=80, dim=8, n_layers=1, n_heads=2, hidden_dim=8)
    told = refusal(save_tiny(DistilBertForMaskedLM(config), tmp_path))
    assert "distilbert" in told


def test_a_folder_without_weights_and_one_of_other_shapes(tmp_path: Path) -> None:
    folder = save_mlm(tmp_path / "shapes")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 32}))
    assert "cannot be loaded" in refusal(folder)
    (folder / "model.safetensors").unlink()
    assert "cannot be loaded" in refusal(folder)
    assert "cannot be loaded" in refusal(tmp_path / "nowhere")


def test_a_tokenizer_that_is_not_fast(tmp_path: Path) -> None:
    folder = save_mlm(tmp_path)
    (folder / "tokenizer.json").unlink()
    CanineTokenizer().save_pretrained(folder)
    assert "no fast tokenizer" in refusal(folder)


@pytest.mark.parametrize("token", ["mask", "pad"])
def test_a_tokenizer_without_a_token_it_needs(tmp_path: Path, token: str) -> None:
    folder = save_mlm(tmp_path)
    tokenizer = tiny_tokenizer()
    setattr(tokenizer, f"{token}_token", None)
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    # the class of BERT's tokenizer brings these tokens along
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    file.write_text(json.dumps(settings))
    assert f"without a {token}" in refusal(folder)


def test_a_tokenizer_of_another_model(tmp_path: Path) -> None:
    assert "belong to different models" in refusal(save_mlm(tmp_path, vocab_size=20))
