"""The reference loop of the augmentation benchmark does the same work as the reference."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from helpers.pipeline_run import ROOT
from helpers.tiny_models import SPECIAL, VOCABULARY
from tiny_masked import headed_bert
from transformers import BertTokenizer

WORDS = ["shop", "lamps", "shops", "refunds"]
VECTORS = np.array([[1, 0], [0, 1], [0.1, 1], [1, 0.1]], dtype=np.float32)


@pytest.fixture
def reference() -> ModuleType:
    """benchmarks/augmentation_reference.py, which is not in a package."""
    name = "augmentation_reference"
    specification = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # where dataclasses look their annotations up
    specification.loader.exec_module(module)
    return module


def test_one_pass_per_short_word_and_one_product_per_long_word(
    reference: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY))
    model, passes = headed_bert(max_position_embeddings=64), []
    original = model.forward

    def forward(ids: Any, **keywords: Any) -> Any:
        assert torch.is_grad_enabled()
        passes.append([VOCABULARY[number] for number in ids[0]])
        return original(ids, **keywords)

    model.forward = forward
    table = reference.WordVectors({word: n for n, word in enumerate(WORDS)}, WORDS, VECTORS)
    loop = reference.ReferenceStyle(model, BertTokenizer(tmp_path / "vocab.txt"), table, "cpu", 2)
    random.seed(3)
    made = loop.variants("Thanks, the lamps broken 9", 8, 0.5)
    text = ["thanks", ",", "the", "lamp", "##s", "broken", "9"]
    expected = []
    for place in (0, 5):  # not ",", "the", "9"; "lamps" has two tokens
        masked = [*text[:place], "[MASK]", *text[place + 1 :]]
        expected.append(["[CLS]", *masked, "[SEP]", *text, "[SEP]"])
    assert passes == expected
    assert made[0] == "thanks , the lamps broken 9"
    assert 1 < len(made) == len(set(made)) <= 9
    assert {example.split()[3] for example in made} <= {"lamps", "shops", "refunds"}
    assert len(SPECIAL) == 5
