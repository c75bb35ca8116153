"""Similar words regardless of context: the nearest by cosine similarity of word vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from factory.augment.words import CONTINUATION, is_word

# A block of cosines takes at most 128 MiB, however many words are looked up at once.
BLOCK_COSINES = 2**25
# Ranked in addition to the requested number, because the word itself may occur in several cases.
SPARE = 16
# More than the error of a float32 cosine. Candidates this close are ranked again in float64, so
# that a word's neighbours do not depend on which words are looked up together with it.
MARGIN = 1e-5
# Words whose neighbours are cached, so that memory stays flat over any number of rows.
CACHED_WORDS = 2**16
# How WordPiece (which marks the other tokens), BPE and SentencePiece begin a word.
WORD_BEGINNINGS = ("", "Ġ", "▁")


class Neighbours(Protocol):
    """A source of similar words."""

    def neighbours(self, words: Sequence[str], count: int) -> list[list[str]]:
        """For each word the `count` most similar other words, best first; [] for unknown words."""
        ...


class CachedNeighbours:
    """A source of neighbours that looks every word up once."""

    def __init__(self, source: Neighbours, count: int) -> None:
        """Look up `count` neighbours of each word."""
        self._source = source
        self._count = count
        self._known: dict[str, list[str]] = {}

    def of(self, words: Sequence[str]) -> list[list[str]]:
        """Neighbours of each word as written, else of its lower case; [] for unknown words."""
        self._look_up(words)
        self._look_up([word.lower() for word in words if not self._known[word]])
        found = [self._known[word] or self._known[word.lower()] for word in words]
        for word in list(self._known)[: max(0, len(self._known) - CACHED_WORDS)]:
            del self._known[word]
        return found

    def _look_up(self, words: Sequence[str]) -> None:
        new = [word for word in dict.fromkeys(words) if word not in self._known]
        if new:
            found = self._source.neighbours(new, self._count)
            self._known.update(zip(new, found, strict=True))


class NearestWords:
    """The nearest words of a list by cosine, without the word itself in any case.

    Equally near words are in the order of the list.

    Args:
        words: the list to choose from.
        vectors: their vectors, float32, scaled to length 1 in place: (words, width).
        vector_of: the vector of a word to look up, (width,), or None if it has none.
    """

    def __init__(
        self,
        words: Sequence[str],
        vectors: NDArray[np.float32],
        vector_of: Callable[[str], NDArray[np.float32] | None],
    ) -> None:
        self._words = words
        self._vectors = vectors
        self._vector_of = vector_of
        vectors /= _lengths(vectors)

    def neighbours(self, words: Sequence[str], count: int) -> list[list[str]]:
        """For each word the `count` most similar other words, best first; [] for unknown words."""
        found: dict[str, list[str]] = {}
        vectors = {word: self._vector_of(word) for word in words}
        known = [item for item in vectors.items() if item[1] is not None and item[1].any()]
        block = max(1, BLOCK_COSINES // max(1, len(self._words)))
        for start in range(0, len(known), block):
            part = known[start : start + block]
            queries = np.array([vector for _, vector in part], dtype=np.float32)
            queries = queries / _lengths(queries)
            cosines = queries @ self._vectors.T
            for (word, _), query, row in zip(part, queries, cosines, strict=True):
                found[word] = self._best(word, query, row, count)
        return [found.get(word, []) for word in words]

    def _best(
        self, word: str, query: NDArray[np.float32], cosines: NDArray[np.float32], count: int
    ) -> list[str]:
        kept = min(count + SPARE, len(cosines))
        least = np.partition(cosines, -kept)[-kept]
        positions = np.flatnonzero(cosines >= least - MARGIN)
        exact = (self._vectors[positions].astype(np.float64) * query.astype(np.float64)).sum(axis=1)
        ranked = positions[np.argsort(-exact, kind="stable")]
        found = (self._words[position] for position in ranked)
        return [other for other in found if other.casefold() != word.casefold()][:count]


def embedding_neighbours(model: Any, tokenizer: Any) -> Neighbours:
    """Words with similar input embeddings in a model; needs no download.

    Only words of letters that are one token of the vocabulary are candidates, and only they have
    neighbours: the nearest to the mean of a word's tokens are these tokens ("bravura": bra, vi).
    """
    embeddings = model.get_input_embeddings().weight.detach().float().cpu().numpy()
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    beginning = ""
    if not any(token.startswith(CONTINUATION) for token in vocabulary):
        beginning = max(
            WORD_BEGINNINGS, key=lambda m: bool(m) * sum(t.startswith(m) for t in vocabulary)
        )
    blank = " " if beginning else ""
    special = set(tokenizer.all_special_tokens)
    words: dict[str, int] = {}
    for token, number in sorted(vocabulary.items(), key=lambda item: item[1]):
        if token.startswith(beginning) and token not in special and number < len(embeddings):
            word = tokenizer.convert_tokens_to_string([token]).strip() if beginning else token
            if is_word(word):
                words.setdefault(word, number)

    def vector_of(word: str) -> NDArray[np.float32] | None:
        numbers = tokenizer(blank + word, add_special_tokens=False)["input_ids"]
        if len(numbers) != 1 or numbers[0] == tokenizer.unk_token_id:
            return None
        vector: NDArray[np.float32] = embeddings[numbers[0]]
        return vector

    return NearestWords(list(words), embeddings[list(words.values())], vector_of)


def _lengths(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Euclidean length of each row, 1 for a row of zeros: (rows, 1)."""
    lengths: NDArray[np.float32] = np.linalg.norm(vectors, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    return lengths
