"""Candidates for words of the original texts, from the recipe's sources in their order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from factory.augment import draws
from factory.augment.context_free import CachedNeighbours
from factory.augment.masked_lm import HiddenWords, WordGuesser
from factory.augment.source_rows import SourceRows
from factory.augment.words import is_word
from factory.recipe.augment import AugmentSettings

if TYPE_CHECKING:
    from factory.augment.mlm_model import MaskedLanguageModel
    from factory.augment.neighbours import Neighbours

# The word itself is among its nearest neighbours in another case, and lists hold non-words: so
# many times the wanted neighbours are asked for.
SPARE_NEIGHBOURS = 2

# Per word the name of the source that knows it and its candidates; words nobody knows are absent.
Candidates = dict[int, tuple[str, list[str]]]


class Proposer:
    """Asks the sources for candidates: the first one that has any for a word decides."""

    def __init__(
        self,
        settings: AugmentSettings,
        max_length: int,
        mlm: MaskedLanguageModel | None,
        neighbours: Mapping[str, Neighbours],
    ) -> None:
        """Prepare the sources that `settings.source_order` names."""
        self._settings = settings
        self._guesser = None if mlm is None else WordGuesser(mlm, max_length, "letters")
        self._neighbours = {
            name: CachedNeighbours(source, settings.candidates * SPARE_NEIGHBOURS)
            for name, source in neighbours.items()
        }
        self._spellings = 0 if self._guesser is None else _most_spellings(self._guesser)

    def propose(self, source: SourceRows, words: NDArray[np.int64]) -> Candidates:
        """At most `settings.candidates` other words for each of some words of the rows."""
        found: Candidates = {}
        for name in self._settings.source_order:
            missing = [word for word in words.tolist() if word not in found]
            for word, texts in self._from(name, source, missing):
                kept = _others(source, word, texts, self._settings.candidates)
                if kept:
                    found[word] = (name, kept)
        return found

    def _from(
        self, name: str, source: SourceRows, words: list[int]
    ) -> Iterable[tuple[int, Sequence[str]]]:
        if name != "mlm":
            surfaces = [source.surface(word) for word in words]
            return zip(words, self._neighbours[name].of(surfaces), strict=True)
        return self._guesses(source, words)

    def _guesses(self, source: SourceRows, words: list[int]) -> Iterator[tuple[int, list[str]]]:
        guesser = self._guesser
        assert guesser is not None, 'the source "mlm" needs its model'
        visible = np.array([w for w in words if guesser.within(source.word(w))], dtype=np.int64)
        groups = hidden_together(source, visible, self._settings)
        texts = [_hidden(guesser, source, group) for group in groups]
        # the word itself, as the text and as the vocabulary spells it, may be among them
        count = self._settings.candidates + 2 * self._spellings
        order = [word for group in groups for word in group]
        for word, ids in zip(order, guesser.guess(texts, count).tolist(), strict=True):
            yield word, [guesser.vocabulary[number] for number in ids]


def hidden_together(
    source: SourceRows, words: NDArray[np.int64], settings: AugmentSettings
) -> list[list[int]]:
    """Which words are hidden in the same forward pass: `masked_share` of all words of their text.

    The words of a text that need G passes are taken G at a time in reading order, and each such
    stretch is dealt out over the passes as the seed has it. So neighbours are in one pass only
    where two stretches meet.

    Args:
        words: numbers of the words to hide, increasing.
    """
    dealt = draws.keys(
        settings.seed, draws.GROUP, source.numbers[words], source.side[words], source.place[words]
    )
    cuts = np.flatnonzero(np.diff(source.segment[words])) + 1
    groups: list[list[int]] = []
    for of_text, order in zip(np.split(words, cuts), np.split(dealt, cuts), strict=True):
        if not len(of_text):
            continue
        together = max(1, round(settings.masked_share * len(source.text(of_text[0]).words)))
        passes = -(-len(of_text) // together)
        parts: list[list[int]] = [[] for _ in range(passes)]
        for start in range(0, len(of_text), passes):
            stretch = of_text[start : start + passes]
            for rank, word in enumerate(stretch[np.argsort(order[start : start + passes])]):
                parts[rank].append(int(word))
        groups += parts
    return groups


def _hidden(guesser: WordGuesser, source: SourceRows, group: list[int]) -> HiddenWords:
    ids = source.text(group[0]).input_ids
    return guesser.hide(ids, [source.word(word) for word in group])


def _others(source: SourceRows, word: int, texts: Iterable[str], count: int) -> list[str]:
    """The first `count` that are words and not the word itself, each once whatever its case."""
    seen = {source.surface(word).casefold(), source.word(word).normal.casefold()}
    kept: list[str] = []
    for text in texts:
        plain = text.casefold()
        if plain not in seen and is_word(text):
            seen.add(plain)
            kept.append(text)
            if len(kept) == count:
                break
    return kept


def _most_spellings(guesser: WordGuesser) -> int:
    """How many pieces of the vocabulary differ in case only, at most."""
    return max(Counter(text.casefold() for text in guesser.vocabulary if text).values())
