"""A folder with a general student exactly as the TinyBERT reference publishes it, only tiny."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helpers.tiny_models import VOCABULARY, tiny_bert

FIELDS: dict[str, Any] = {"num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 32}
TEACHER_HIDDEN = 24
# what stands in the config.json of the reference's general students; no model_type
REFERENCE_CONFIG: dict[str, Any] = {
    "attention_probs_dropout_prob": 0.1,
    "cell": {},
    "emb_size": 16,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 16,
    "initializer_range": 0.02,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "pre_trained": "",
    "structure": [],
    "type_vocab_size": 2,
    "vocab_size": len(VOCABULARY),
}


def reference_state() -> dict[str, Tensor]:
    """A general student's weights: encoder, language model heads, a projection per layer."""
    bert = tiny_bert(seed=5, **FIELDS).bert
    state = {f"bert.{name}": tensor.clone() for name, tensor in bert.state_dict().items()}
    state["bert.embeddings.position_ids"] = torch.arange(32).unsqueeze(0)
    state["cls.predictions.bias"] = torch.ones(len(VOCABULARY))
    state["cls.predictions.decoder.weight"] = torch.ones(len(VOCABULARY), 16)
    state["cls.seq_relationship.weight"] = torch.ones(2, 16)
    for layer in range(3):
        state[f"fit_denses.{layer}.weight"] = torch.randn(TEACHER_HIDDEN, 16)
        state[f"fit_denses.{layer}.bias"] = torch.randn(TEACHER_HIDDEN)
    return state


def write_reference(folder: Path, state: Mapping[str, Tensor], zipped: bool = False) -> Path:
    """A folder as the reference published it: pickled weights, vocab.txt, no tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(REFERENCE_CONFIG))
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    torch.save(dict(state), folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    return folder
