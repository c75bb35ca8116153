"""An augmentation loop in the style of TinyBERT's published one, to measure ours against.

It does what the reference does, written anew: a text is split by BERT's Python tokenizer; a word of
plain a to z that is no stop word gets candidates once. A word of one piece is masked, the masked
text and the original one go through the model together, one word at a time, gradients on, the
model moved to its device before each pass, and the output head runs over every token. A word of
several pieces is compared with all word vectors in a full product, and all of them are sorted;
nothing is remembered. Copies then draw from the candidates, and repeated ones are dropped.

In its favour: the model is in eval mode, nothing is logged, and nothing is written.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from factory.augment.words import stop_words

LENGTH = 512


@dataclass(frozen=True, slots=True)
class WordVectors:
    """Words and their vectors of length 1, (words, width)."""

    numbers: dict[str, int]
    words: list[str]
    vectors: NDArray[np.float32]


class ReferenceStyle:
    """The loop; `tokenizer` is the Python one."""

    def __init__(
        self, model: Any, tokenizer: Any, vectors: WordVectors, device: str, candidates: int
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.vectors = vectors
        self.device = device
        self.candidates = candidates

    def variants(self, text: str, copies: int, probability: float) -> list[str]:
        """The text and its different variants, lower case, blanks between all tokens."""
        tokens = self.tokenizer.basic_tokenizer.tokenize(text)
        choices = {place: self._propose(text, tokens, place) for place in range(len(tokens))}
        made = [" ".join(tokens)]
        for _ in range(copies):
            changed = list(tokens)
            for place, words in choices.items():
                if words and random.random() < probability:
                    changed[place] = random.choice(words)
            sentence = " ".join(changed)
            if sentence not in made:
                made.append(sentence)
        return made

    def _propose(self, text: str, tokens: Sequence[str], place: int) -> list[str]:
        word = tokens[place].lower()
        plain = word.isascii() and word.isalpha()
        if not plain or word in stop_words():
            return []
        if len(self.tokenizer.tokenize(word)) == 1:
            return self._likely(text, tokens, place)
        return self._nearest(word)

    def _likely(self, text: str, tokens: Sequence[str], place: int) -> list[str]:
        """The best pieces for a masked word, before a copy of the text that shows it."""
        masked = [*tokens[:place], "[MASK]", *tokens[place + 1 :]]
        first = ["[CLS]", *self.tokenizer.tokenize(" ".join(masked)), "[SEP]"]
        second = [*self.tokenizer.tokenize(text), "[SEP]"]
        pieces = (first + second)[:LENGTH]
        types = ([0] * len(first) + [1] * len(second))[:LENGTH]
        ids = torch.tensor([self.tokenizer.convert_tokens_to_ids(pieces)]).to(self.device)
        type_ids = torch.tensor([types]).to(self.device)
        self.model.to(self.device)
        logits = self.model(ids, token_type_ids=type_ids).logits
        best = torch.topk(logits[0, pieces.index("[MASK]")], self.candidates).indices
        found = self.tokenizer.convert_ids_to_tokens(best.tolist())
        return [piece for piece in found if "##" not in piece]

    def _nearest(self, word: str) -> list[str]:
        number = self.vectors.numbers.get(word)
        if number is None:
            return []
        cosines = self.vectors.vectors @ self.vectors.vectors[number]
        order = np.argsort(-cosines)
        return [self.vectors.words[other] for other in order[1 : self.candidates + 1]]
