"""Tiny masked language models, with or without their head, as folders in the hub's format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_models import save_tiny, tiny_bert
from transformers import BertForMaskedLM

from factory.models.source import ModelSource


def tiny_mlm(seed: int = 1, **changes: Any) -> BertForMaskedLM:
    """The body of `tiny_bert` under a random masked-language-model head."""
    body = tiny_bert(seed=seed, **changes).bert
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BertForMaskedLM(body.config)
    model.bert.load_state_dict(body.state_dict(), strict=False)  # this one has no pooler
    return model.eval()


def save_mlm(directory: Path, **changes: Any) -> Path:
    """A folder with `tiny_mlm` and its tokenizer."""
    return save_tiny(tiny_mlm(**changes), directory)


def source_of(folder: Path) -> ModelSource:
    """The folder as a model source."""
    return ModelSource(str(folder), None, "sha256:test")
