"""Masked language models of a few kilobytes, some with fixed answers, and word lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers.tiny_models import MAX_LENGTH, VOCABULARY, save_tiny, tiny_bert, tiny_tokenizer
from transformers import BertForMaskedLM

from factory.augment import keyed_rng
from factory.augment.masked_lm import MaskedLanguageModel
from factory.augment.proposers import Proposers
from factory.augment.rows import SourceRows, split_rows
from factory.augment.words import WordSplitter
from factory.data.dataset import Split
from factory.recipe.augment import AugmentSettings


@dataclass(frozen=True, slots=True)
class ListedNeighbours:
    """Neighbours from a table; records the words looked up."""

    table: Mapping[str, list[str]]
    looked_up: list[str]

    def neighbours(self, words: Sequence[str], count: int) -> list[list[str]]:
        """Look the words up."""
        self.looked_up.extend(words)
        return [self.table.get(word, [])[:count] for word in words]


def listed(**table: list[str]) -> ListedNeighbours:
    """Neighbours of the named words."""
    return ListedNeighbours(table, [])


def tiny_mlm(seed: int = 1) -> MaskedLanguageModel:
    """A random masked language model whose guesses depend on the text."""
    torch.manual_seed(seed)
    model = BertForMaskedLM(tiny_bert(max_position_embeddings=32).config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    return MaskedLanguageModel(model.eval(), tiny_tokenizer(), "cpu")


def fixed_mlm(*likely: str) -> MaskedLanguageModel:
    """A model that finds the same words likely everywhere, the first most."""
    mlm = tiny_mlm()
    head = mlm.model.cls.predictions
    with torch.no_grad():
        head.transform.LayerNorm.weight.zero_()
        head.transform.LayerNorm.bias.zero_()
        head.bias.copy_(-torch.arange(len(VOCABULARY), dtype=torch.float32) - 100)
        for rank, word in enumerate(likely):
            head.bias[VOCABULARY.index(word)] = -rank
    return mlm


def settings_with(**changes: Any) -> AugmentSettings:
    """Settings with an mlm only and one copy per row."""
    return AugmentSettings(**{"mlm": "any", "sources": ["mlm"], "copies": 1, **changes})


def split_of(*texts: str, pairs: Sequence[str] | None = None) -> Split:
    """Training rows of one class."""
    return Split("train", list(texts), None if pairs is None else list(pairs), [0] * len(texts))


def source_of_rows(train: Split, max_length: int = MAX_LENGTH) -> SourceRows:
    """All rows, split into words."""
    tokenizer = tiny_tokenizer()
    rows = range(len(train))
    return split_rows(train, rows, WordSplitter(tokenizer), tokenizer, max_length)


def proposers_with(
    mlm: MaskedLanguageModel | None = None,
    max_length: int = MAX_LENGTH,
    **neighbours: ListedNeighbours,
) -> Proposers:
    """A model and lists beside the tiny tokenizer."""
    return Proposers(tiny_tokenizer(), max_length, mlm, neighbours)


def ranked_words(mlm: MaskedLanguageModel, words: Sequence[str], place: int) -> list[str]:
    """The vocabulary by probability at a masked word of a text, from one pass without a batch."""
    masked = " ".join([*words[:place], "[MASK]", *words[place + 1 :]])
    encoded = mlm.tokenizer(masked, return_tensors="pt")
    at = encoded["input_ids"][0].tolist().index(mlm.tokenizer.mask_token_id)
    logits = mlm.model(**encoded).logits[0, at].detach().numpy()
    return [VOCABULARY[number] for number in np.argsort(-logits, kind="stable")]


def plain_draw(settings: AugmentSettings, row: int, copy: int, place: int) -> float:
    """The number p of algorithm 1 for one word of a single text."""
    bits = keyed_rng.random_bits(settings.seed, keyed_rng.REPLACE, [row], copy, 0, place)
    return float(keyed_rng.uniform(bits)[0])


def plain_choice(
    settings: AugmentSettings, row: int, copy: int, place: int, candidates: Sequence[str]
) -> str:
    """The candidate chosen for one word of a single text."""
    bits = keyed_rng.random_bits(settings.seed, keyed_rng.CHOICE, [row], copy, 0, place)
    keys = np.array([[keyed_rng.text_key(text) for text in candidates]], np.uint64)
    return candidates[keyed_rng.choose(bits, keys)[0]]


def headed_bert(seed: int = 1, **changes: Any) -> BertForMaskedLM:
    """The body of `tiny_bert` under a random masked-language-model head."""
    body = tiny_bert(seed=seed, **changes).bert
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BertForMaskedLM(body.config)
    model.bert.load_state_dict(body.state_dict(), strict=False)  # this one has no pooler
    return model.eval()


def save_mlm(directory: Path, **changes: Any) -> Path:
    """A folder with `headed_bert` and its tokenizer."""
    return save_tiny(headed_bert(**changes), directory)
