"""The mode "paper": algorithm 1 of TinyBERT (Jiao et al. 2020), exactly as published."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from factory.augment import keyed_rng
from factory.augment.masked_lm import WordGuesser
from factory.augment.neighbours import CachedNeighbours
from factory.augment.rows import (
    Drawn,
    ReplacementMask,
    SourceRows,
    assemble,
    draw_replacements,
)
from factory.augment.words import WordSplitter
from factory.recipe.augment import AugmentSettings

if TYPE_CHECKING:
    from factory.augment.proposers import Proposers


@dataclass(slots=True)
class _Walk:
    """One copy of one text, processed from the first word to the last.

    Args:
        words: numbers of the words still to be replaced, in reading order.
        input_ids: tokens of the text as changed so far.
        shift: number of tokens added so far.
    """

    copy: int
    words: list[int]
    input_ids: list[int]
    shift: int = 0


class Algorithm1:
    """Draws augmented examples by algorithm 1.

    A word of one token is replaced by one of the K most probable words of the masked language
    model, with this word masked in the text as already changed. The word itself may be among
    them, and so may numbers and punctuation, which are words to BERT. K counts words: tokens that
    begin with ## continue a word and cannot replace one, and special and unused tokens are not
    text, so all three are skipped. (The reference takes the K most probable tokens and drops
    those with ##, which leaves fewer.) A word of several tokens is replaced by one of its K
    nearest words in the recipe's other sources; the first source that has the word is used.
    """

    def __init__(
        self, settings: AugmentSettings, proposers: Proposers, splitter: WordSplitter
    ) -> None:
        """Prepare the sources; `splitter` uses the tokenizer of the masked language model."""
        assert proposers.mlm is not None, 'mode = "paper" requires augment.mlm'
        self._settings = settings
        self._splitter = splitter
        self._guesser = WordGuesser(proposers.mlm, proposers.max_length, "all")
        self._neighbours = {
            name: CachedNeighbours(proposers.neighbours[name], settings.candidates)
            for name in settings.source_order
            if name != "mlm"
        }

    def draw(self, source: SourceRows, copies: int) -> Drawn:
        """Draw the examples of some rows.

        The algorithm computes candidates for every word and then draws p, which decides whether
        they are used. Here p is drawn first, and candidates are computed only where p <= p_t: the
        draws do not depend on the candidates, so the examples have the same distribution. All
        copies of all rows process their n-th replacement in the same step, in shared batches.
        """
        if not len(source):
            return Drawn([], Counter())
        mask = draw_replacements(source, self._settings, copies)
        counts: Counter[str] = Counter()
        new = self._replace_long_words(source, mask, counts)
        walks = [
            _Walk(copy, of_text.tolist(), list(source.text(of_text[0]).input_ids))
            for copy, replace in enumerate(mask.replace)
            for of_text in source.by_text(np.flatnonzero(replace))
        ]
        while walks:
            stops = [(walk, self._next_guess(walk, source, new)) for walk in walks]
            waiting = [(walk, word) for walk, word in stops if word is not None]
            if waiting:
                self._guess(waiting, source, mask, new)
                counts["mlm"] += len(waiting)
            walks = [walk for walk, _ in waiting if walk.words]
        for copy, word in zip(*np.nonzero(new), strict=True):
            if new[copy, word] == source.surface(word):  # replaced by itself: not a change
                new[copy, word] = None
        return Drawn(assemble(source, new), counts)

    def _replace_long_words(
        self, source: SourceRows, mask: ReplacementMask, counts: Counter[str]
    ) -> NDArray[np.object_]:
        """Replace the words of several tokens, whose candidates do not depend on other words."""
        new = np.full(mask.replace.shape, None, dtype=np.object_)
        replaced = np.flatnonzero(mask.replace.any(axis=0)).tolist()
        unknown = [word for word in replaced if not source.word(word).single]
        for name, neighbours in self._neighbours.items():
            nearest = neighbours.of([source.surface(word) for word in unknown])
            for word, texts in zip(unknown, nearest, strict=True):
                if texts:
                    copies = np.flatnonzero(mask.replace[:, word])
                    keys = np.array([[keyed_rng.word_key(text) for text in texts]], np.uint64)
                    ranks = keyed_rng.choose(mask.choices[copies, word], keys)
                    new[copies, word] = np.array(texts, dtype=np.object_)[ranks]
                    counts[name] += len(copies)
            unknown = [word for word, texts in zip(unknown, nearest, strict=True) if not texts]
        return new

    def _next_guess(self, walk: _Walk, source: SourceRows, new: NDArray[np.object_]) -> int | None:
        """Advance to the next word of one token; insert the new words that come before it."""
        while walk.words:
            number = walk.words.pop(0)
            word = source.word(number)
            if word.single:
                if self._guesser.within(word, walk.shift):
                    return number
            elif new[walk.copy, number] is not None:
                tokens = self._splitter.token_ids(new[walk.copy, number])
                begin, end = word.first_token + walk.shift, word.end_token + walk.shift
                walk.input_ids[begin:end] = tokens
                walk.shift += len(tokens) - (end - begin)
        return None

    def _guess(
        self,
        waiting: list[tuple[_Walk, int]],
        source: SourceRows,
        mask: ReplacementMask,
        new: NDArray[np.object_],
    ) -> None:
        """Replace one word in each of the given walks."""
        guesser = self._guesser
        texts = [
            guesser.hide(walk.input_ids, [source.word(word)], walk.shift) for walk, word in waiting
        ]
        ids = guesser.guess(texts, self._settings.candidates)
        bits = mask.choices[[walk.copy for walk, _ in waiting], [word for _, word in waiting]]
        ranks = keyed_rng.choose(bits, guesser.vocabulary_keys[ids])
        chosen = ids[np.arange(len(ids)), ranks].tolist()
        for (walk, word), number in zip(waiting, chosen, strict=True):
            new[walk.copy, word] = guesser.vocabulary[number]
            walk.input_ids[source.word(word).first_token + walk.shift] = number
