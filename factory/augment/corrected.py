"""Variants in the corrected way: candidates once per word of the original text, answer hidden."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from factory.augment import draws
from factory.augment.candidates import Candidates, Proposer
from factory.augment.rendering import Drawn, assemble, in_case_of
from factory.augment.source_rows import SourceRows, Wishes, draw_wishes
from factory.recipe.augment import AugmentSettings


def corrected_variants(
    source: SourceRows, settings: AugmentSettings, copies: int, proposer: Proposer
) -> Drawn:
    """Draw the variants of some rows.

    Which words each copy replaces is drawn first, so candidates are computed only for words that
    some copy asks for. A text that would come out as it was has the word with the lowest draw
    replaced.
    """
    if not len(source):
        return Drawn([], 0, Counter())
    wishes = draw_wishes(source, settings, copies)
    everything = np.ones(len(source), dtype=np.bool_)
    replace = wishes.replace | _lowest(source, wishes, wishes.replace, everything)
    candidates = proposer.propose(source, np.flatnonzero(replace.any(axis=0)))
    replace &= _known(source, candidates)
    others = _words_of_bare_texts(source, wishes, replace)
    if len(others):
        candidates |= proposer.propose(source, others)
        replace |= _lowest(source, wishes, replace, _known(source, candidates))
    new = _chosen(source, wishes, replace, candidates)
    counts: Counter[str] = Counter()
    for word, count in enumerate(replace.sum(axis=0).tolist()):
        if count:
            counts[candidates[word][0]] += count
    return Drawn(assemble(source, new), copies * len(source), counts)


def _known(source: SourceRows, candidates: Candidates) -> NDArray[np.bool_]:
    known = np.zeros(len(source), dtype=np.bool_)
    known[list(candidates)] = True
    return known


def _bare(source: SourceRows, wishes: Wishes, replace: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Texts that a copy means to change and does not: (copies, segments)."""
    changed = np.logical_or.reduceat(replace, source.segment_starts, axis=1)
    bare: NDArray[np.bool_] = wishes.active & ~changed
    return bare


def _lowest(
    source: SourceRows,
    wishes: Wishes,
    replace: NDArray[np.bool_],
    allowed: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """In each bare text the allowed word with the lowest draw: (copies, words)."""
    values = np.where(allowed, wishes.draws, np.inf)
    lowest = np.minimum.reduceat(values, source.segment_starts, axis=1)
    bare = _bare(source, wishes, replace) & np.isfinite(lowest)
    result: NDArray[np.bool_] = bare[:, source.segment] & (values == lowest[:, source.segment])
    return result


def _words_of_bare_texts(
    source: SourceRows, wishes: Wishes, replace: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """All words of texts that are bare in some copy because nobody knew the words asked for."""
    in_any_copy = np.logical_or.reduce(_bare(source, wishes, replace), axis=0)
    return np.flatnonzero(in_any_copy[source.segment])


def _chosen(
    source: SourceRows, wishes: Wishes, replace: NDArray[np.bool_], candidates: Candidates
) -> NDArray[np.object_]:
    """The word that stands for each replaced one: (copies, words), None where nothing changes."""
    new = np.full(replace.shape, None, dtype=np.object_)
    longest = max((len(texts) for _, texts in candidates.values()), default=0)
    candidate_keys = np.zeros((len(source), longest), dtype=np.uint64)
    there = np.zeros((len(source), longest), dtype=np.bool_)
    for word, (_, texts) in candidates.items():
        candidate_keys[word, : len(texts)] = [draws.word_key(text) for text in texts]
        there[word, : len(texts)] = True
    surfaces = {word: source.surface(word) for word in candidates}
    for copy, words in enumerate(map(np.flatnonzero, replace)):
        if not len(words):
            continue
        bits = wishes.choices[copy, words]
        ranks = draws.chosen(bits, candidate_keys[words], there[words])
        for word, rank in zip(words.tolist(), ranks.tolist(), strict=True):
            new[copy, word] = in_case_of(surfaces[word], candidates[word][1][rank])
    return new
