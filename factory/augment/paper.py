"""Variants by TinyBERT's algorithm 1 (Jiao et al. 2020), to the letter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from factory.augment import draws
from factory.augment.context_free import CachedNeighbours, first_known
from factory.augment.masked_lm import WordGuesser
from factory.augment.rendering import Drawn, assemble
from factory.augment.source_rows import SourceRows, Wishes, draw_wishes
from factory.augment.words import WordSplitter
from factory.recipe.augment import AugmentSettings


@dataclass(slots=True)
class _Walk:
    """One copy of one text on its way from the first word to the last.

    Args:
        words: numbers of the words still to be replaced, in reading order.
        input_ids: the pieces of the text as changed so far.
        shift: how many pieces it has gained so far.
    """

    copy: int
    words: list[int]
    input_ids: list[int]
    shift: int = 0


class PaperSources:
    """Who proposes words in algorithm 1.

    A word of one piece gets the K most probable words of the mlm with this word masked in the
    text as already changed; the word itself may be among them. K counts words: pieces with ##
    continue a word and cannot stand for one, special and unused tokens are no text, so all three
    are passed over (the reference takes the K most probable pieces and drops those with ##, which
    leaves fewer). Numbers and marks are words to BERT and stay. A word of several pieces gets its
    K nearest from the recipe's other sources, the first that knows it.
    """

    def __init__(
        self,
        guesser: WordGuesser,
        splitter: WordSplitter,
        neighbours: dict[str, CachedNeighbours],
        settings: AugmentSettings,
    ) -> None:
        """Take the mlm, the splitter of its tokenizer, and sources that know neighbours."""
        self.guesser = guesser
        self.splitter = splitter
        self.candidates = settings.candidates
        self._neighbours = neighbours
        self._order = [name for name in settings.source_order if name != "mlm"]

    def nearest(self, words: Sequence[str]) -> list[tuple[str, list[str]]]:
        """For each word its source and the K nearest; ("", []) for a word nobody knows."""
        return first_known(self._neighbours, self._order, words)


def paper_variants(
    source: SourceRows, settings: AugmentSettings, copies: int, sources: PaperSources
) -> Drawn:
    """Draw the variants of some rows.

    The algorithm finds candidates for every word and then draws p, which decides whether they are
    used. Here p is drawn first and candidates are found only where p <= p_t: the draws are
    independent of the candidates, so the variants have the same distribution. All copies of all
    rows are at their n-th replacement at the same time, and the mlm reads them together.
    """
    if not len(source):
        return Drawn([], 0, Counter())
    wishes = draw_wishes(source, settings, copies)
    counts: Counter[str] = Counter()
    new = _replace_long_words(source, wishes, sources, counts)
    walks = _walks(source, wishes)
    while walks:
        stops = [(walk, _next_guess(walk, source, new, sources)) for walk in walks]
        waiting = [(walk, word) for walk, word in stops if word is not None]
        _guess(waiting, source, wishes, new, sources)
        counts["mlm"] += len(waiting)
        walks = [walk for walk, _ in waiting if walk.words]
    _forget_same(source, new)
    return Drawn(assemble(source, new), copies * len(source), counts)


def _forget_same(source: SourceRows, new: NDArray[np.object_]) -> None:
    """Words that stand for themselves are no change."""
    for copy, word in zip(*np.nonzero(new), strict=True):
        if new[copy, word] == source.surface(word):
            new[copy, word] = None


def _replace_long_words(
    source: SourceRows, wishes: Wishes, sources: PaperSources, counts: Counter[str]
) -> NDArray[np.object_]:
    """Choose for the words of several pieces, whose candidates no other word has a part in."""
    new = np.full(wishes.replace.shape, None, dtype=np.object_)
    words = [
        word
        for word in np.flatnonzero(wishes.replace.any(axis=0)).tolist()
        if not source.word(word).single
    ]
    nearest = sources.nearest([source.surface(word) for word in words])
    for word, (name, texts) in zip(words, nearest, strict=True):
        copies = np.flatnonzero(wishes.replace[:, word])
        if texts:
            known = np.array([[draws.word_key(text) for text in texts]], dtype=np.uint64)
            ranks = draws.chosen(wishes.choices[copies, word], known, np.ones_like(known, bool))
            new[copies, word] = np.array(texts, dtype=np.object_)[ranks]
            counts[name] += len(copies)
    return new


def _walks(source: SourceRows, wishes: Wishes) -> list[_Walk]:
    walks = []
    for copy, replace in enumerate(wishes.replace):
        words = np.flatnonzero(replace)
        cuts = np.flatnonzero(np.diff(source.segment[words])) + 1
        walks += [
            _Walk(copy, of_text.tolist(), list(source.text(of_text[0]).input_ids))
            for of_text in np.split(words, cuts)
            if len(of_text)
        ]
    return walks


def _next_guess(
    walk: _Walk, source: SourceRows, new: NDArray[np.object_], sources: PaperSources
) -> int | None:
    """Go on to the next word that the mlm has to guess, putting in long words on the way."""
    while walk.words:
        number = walk.words.pop(0)
        word = source.word(number)
        if word.single:
            if sources.guesser.within(word, walk.shift):
                return number
        elif new[walk.copy, number] is not None:
            pieces = sources.splitter.pieces(new[walk.copy, number])
            begin, end = word.first_piece + walk.shift, word.end_piece + walk.shift
            walk.input_ids[begin:end] = pieces
            walk.shift += len(pieces) - (end - begin)
    return None


def _guess(
    waiting: list[tuple[_Walk, int]],
    source: SourceRows,
    wishes: Wishes,
    new: NDArray[np.object_],
    sources: PaperSources,
) -> None:
    """Replace one word in each of the waiting walks."""
    if not waiting:
        return
    guesser = sources.guesser
    texts = [
        guesser.hide(walk.input_ids, [source.word(word)], walk.shift) for walk, word in waiting
    ]
    ids = guesser.guess(texts, sources.candidates)
    bits = wishes.choices[[walk.copy for walk, _ in waiting], [word for _, word in waiting]]
    ranks = draws.chosen(bits, guesser.vocabulary_keys[ids], np.ones_like(ids, dtype=np.bool_))
    for (walk, word), number in zip(waiting, ids[np.arange(len(ids)), ranks].tolist(), strict=True):
        new[walk.copy, word] = guesser.vocabulary[number]
        walk.input_ids[source.word(word).first_piece + walk.shift] = number
