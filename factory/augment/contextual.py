"""The mode "corrected": candidates for words of the original text, which are hidden from the model.

Candidates are computed once per word, for any number of copies, and exclude the word itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from factory.augment import keyed_rng
from factory.augment.masked_lm import WordGuesser
from factory.augment.neighbours import CachedNeighbours
from factory.augment.rows import Drawn, ReplacementMask, SourceRows, assemble, draw_replacements
from factory.augment.words import is_word
from factory.recipe.augment import AugmentSettings

if TYPE_CHECKING:
    from factory.augment.proposers import Proposers

# Request twice the required number of neighbours: the word itself may be among them in another
# case, and lists contain tokens that are not words.
SPARE_NEIGHBOURS = 2

# For each word its source and its candidates; words without candidates are absent.
Candidates = dict[int, tuple[str, list[str]]]


class ContextualMode:
    """Draws augmented examples from candidates of the recipe's sources, in their order."""

    def __init__(self, settings: AugmentSettings, proposers: Proposers) -> None:
        """Prepare the sources that `settings.source_order` names."""
        self._settings = settings
        mlm = proposers.mlm
        self._guesser = None if mlm is None else WordGuesser(mlm, proposers.max_length, "letters")
        self._neighbours = {
            name: CachedNeighbours(source, settings.candidates * SPARE_NEIGHBOURS)
            for name, source in proposers.neighbours.items()
        }
        self._spellings = 0
        if self._guesser is not None:  # most vocabulary entries that differ in case only
            folded = Counter(text.casefold() for text in self._guesser.vocabulary if text)
            self._spellings = max(folded.values())

    def draw(self, source: SourceRows, copies: int) -> Drawn:
        """Draw the examples of some rows.

        The words that each copy replaces are drawn first, so candidates are computed only for
        words that some copy replaces. In a text without any replacement, the word with the lowest
        draw is replaced.
        """
        if not len(source):
            return Drawn([], Counter())
        mask = draw_replacements(source, self._settings, copies)
        everything = np.ones(len(source), dtype=np.bool_)
        replace = mask.replace | _lowest(source, mask, mask.replace, everything)
        candidates = self._propose(source, np.flatnonzero(replace.any(axis=0)))
        replace &= _known(source, candidates)
        # texts that are unchanged in some copy because no source has the words drawn
        unchanged = np.flatnonzero(_unchanged(source, mask, replace).any(axis=0))
        others = np.flatnonzero(np.isin(source.segment, unchanged))
        if len(others):
            candidates |= self._propose(source, others)
            replace |= _lowest(source, mask, replace, _known(source, candidates))
        counts: Counter[str] = Counter()
        for word, count in enumerate(replace.sum(axis=0).tolist()):
            if count:
                counts[candidates[word][0]] += count
        return Drawn(assemble(source, _choose_words(source, mask, replace, candidates)), counts)

    def _propose(self, source: SourceRows, words: NDArray[np.int64]) -> Candidates:
        """At most `settings.candidates` other words for each of some words of the rows."""
        found: Candidates = {}
        for name in self._settings.source_order:
            missing = [word for word in words.tolist() if word not in found]
            proposed: Iterable[tuple[int, Sequence[str]]]
            if name == "mlm":
                proposed = self._guesses(source, missing)
            else:
                surfaces = [source.surface(word) for word in missing]
                proposed = zip(missing, self._neighbours[name].of(surfaces), strict=True)
            for word, texts in proposed:
                kept = _other_words(source, word, texts, self._settings.candidates)
                if kept:
                    found[word] = (name, kept)
        return found

    def _guesses(self, source: SourceRows, words: list[int]) -> Iterable[tuple[int, list[str]]]:
        guesser = self._guesser
        assert guesser is not None, 'the source "mlm" has a model'
        visible = np.array([w for w in words if guesser.within(source.word(w))], dtype=np.int64)
        groups = hidden_together(source, visible, self._settings)
        texts = [
            guesser.hide(source.text(group[0]).input_ids, [source.word(word) for word in group])
            for group in groups
        ]
        # the word itself may be among them, in the spelling of the text and of the vocabulary
        count = self._settings.candidates + 2 * self._spellings
        order = [word for group in groups for word in group]
        for word, ids in zip(order, guesser.guess(texts, count).tolist(), strict=True):
            yield word, [guesser.vocabulary[number] for number in ids]


def hidden_together(
    source: SourceRows, words: NDArray[np.int64], settings: AugmentSettings
) -> list[list[int]]:
    """Group words that one forward pass hides: `masked_share` of all words of their text.

    If a text needs G passes, its words are taken G at a time in reading order, and each such
    stretch is distributed over the passes at random. Neighbouring words are therefore hidden
    together only where two stretches meet.

    Args:
        words: numbers of the words to hide, increasing.
    """
    groups: list[list[int]] = []
    for of_text in source.by_text(words):
        keys = source.positions[of_text], source.side[of_text], source.place[of_text]
        order = keyed_rng.random_bits(settings.seed, keyed_rng.GROUP, *keys)
        together = max(1, round(settings.masked_share * len(source.text(of_text[0]).words)))
        passes = -(-len(of_text) // together)
        parts: list[list[int]] = [[] for _ in range(passes)]
        for start in range(0, len(of_text), passes):
            stretch = of_text[start : start + passes]
            for rank, word in enumerate(stretch[np.argsort(order[start : start + passes])]):
                parts[rank].append(int(word))
        groups += parts
    return groups


def match_case(word: str, new: str) -> str:
    """A new word in the case of the word it replaces: Title, UPPER, or unchanged."""
    if len(word) > 1 and word.isupper():
        return new.upper()
    if word[0].isupper() and word[1:] == word[1:].lower():
        return new[0].title() + new[1:]
    return new


def _other_words(source: SourceRows, word: int, texts: Iterable[str], count: int) -> list[str]:
    """The first `count` words that differ from the word itself and each other in more than case."""
    own = {source.surface(word).casefold(), source.word(word).normal.casefold()}
    kept: dict[str, str] = {}
    for text in texts:
        folded = text.casefold()
        if folded not in own and is_word(text):
            kept.setdefault(folded, text)
            if len(kept) == count:
                break
    return list(kept.values())


def _known(source: SourceRows, candidates: Candidates) -> NDArray[np.bool_]:
    known = np.zeros(len(source), dtype=np.bool_)
    known[list(candidates)] = True
    return known


def _unchanged(
    source: SourceRows, mask: ReplacementMask, replace: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Active texts in which nothing is replaced: (copies, segments)."""
    changed = np.logical_or.reduceat(replace, source.segment_starts, axis=1)
    unchanged: NDArray[np.bool_] = mask.active & ~changed
    return unchanged


def _lowest(
    source: SourceRows,
    mask: ReplacementMask,
    replace: NDArray[np.bool_],
    allowed: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """In each unchanged text the allowed word with the lowest draw: (copies, words)."""
    draws = np.where(allowed, mask.draws, np.inf)
    lowest = np.minimum.reduceat(draws, source.segment_starts, axis=1)
    texts = _unchanged(source, mask, replace) & np.isfinite(lowest)
    result: NDArray[np.bool_] = texts[:, source.segment] & (draws == lowest[:, source.segment])
    return result


def _choose_words(
    source: SourceRows,
    mask: ReplacementMask,
    replace: NDArray[np.bool_],
    candidates: Candidates,
) -> NDArray[np.object_]:
    """The new word for each replaced one: (copies, words), None where nothing changes."""
    new = np.full(replace.shape, None, dtype=np.object_)
    longest = max((len(texts) for _, texts in candidates.values()), default=0)
    keys = np.zeros((len(source), longest), dtype=np.uint64)
    exists = np.zeros((len(source), longest), dtype=np.bool_)
    for word, (_, texts) in candidates.items():
        keys[word, : len(texts)] = [keyed_rng.word_key(text) for text in texts]
        exists[word, : len(texts)] = True
    surfaces = {word: source.surface(word) for word in candidates}
    for copy, words in enumerate(map(np.flatnonzero, replace)):
        if len(words):
            ranks = keyed_rng.choose(mask.choices[copy, words], keys[words], exists[words])
            for word, rank in zip(words.tolist(), ranks.tolist(), strict=True):
                new[copy, word] = match_case(surfaces[word], candidates[word][1][rank])
    return new
