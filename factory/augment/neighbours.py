"""Words like a word, whatever stands around it: the nearest by cosine among word vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from factory.augment.words import is_word

# A block of cosines takes at most 128 MiB, however many words are asked for at once.
BLOCK_COSINES = 2**25
# Ranked beyond what is asked for, because the word itself may stand there in several spellings.
SPARE = 16
# More than float32 can get a cosine wrong by. Whatever is this close is ranked again in float64, so
# that a word's neighbours do not depend on which words are asked for together with it.
MARGIN = 1e-5
# How BPE and SentencePiece vocabularies mark a piece that begins a word.
WORD_BEGINNINGS = ("Ġ", "▁")


class Neighbours(Protocol):
    """Words like a word, whatever stands around it."""

    def neighbours(self, words: Sequence[str], count: int) -> list[list[str]]:
        """For each word the `count` most similar other words, best first; [] for a word unknown."""
        ...


class NearestWords:
    """The nearest words of a fixed list by cosine; the word itself, in any case, is none of them.

    Equally near words stand in the order of the list.

    Args:
        words: the list to choose from.
        vectors: one vector for each, float32, scaled to length 1 in place: (words, width).
        vector_of: the vector of a word asked for, (width,), or None when it has none.
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
        """For each word the `count` most similar other words, best first; [] for a word unknown."""
        found: dict[str, list[str]] = {}
        vectors = {word: self._vector_of(word) for word in words}
        known = [(word, vector) for word, vector in vectors.items() if vector is not None]
        block = max(1, BLOCK_COSINES // max(1, len(self._words)))
        for start in range(0, len(known), block):
            part = known[start : start + block]
            queries = np.stack([vector for _, vector in part])
            queries = queries / _lengths(queries)
            cosines = queries @ self._vectors.T
            for (word, _), query, row in zip(part, queries, cosines, strict=True):
                found[word] = self._best(word, query, row, count)
        return [found.get(word, []) for word in words]

    def _best(
        self, word: str, query: NDArray[np.float32], cosines: NDArray[np.float32], count: int
    ) -> list[str]:
        if not query.any() or not len(cosines):
            return []
        kept = min(count + SPARE, len(cosines))
        least = np.partition(cosines, -kept)[-kept]
        positions = np.flatnonzero(cosines >= least - MARGIN)
        exact = (self._vectors[positions].astype(np.float64) * query.astype(np.float64)).sum(axis=1)
        ranked = positions[np.argsort(-exact, kind="stable")]
        own = word.casefold()
        found = [self._words[position] for position in ranked]
        return [other for other in found if other.casefold() != own][:count]


def embedding_neighbours(model: Any, tokenizer: Any) -> Neighbours:
    """Words whose input embeddings in a model are alike; needs no download.

    Candidates are the words of letters that the vocabulary holds whole, and only such words have
    neighbours: what is nearest to the mean of a word's pieces is those pieces ("bravura": bra, vi).
    """
    embeddings = model.get_input_embeddings().weight.detach().float().cpu().numpy()
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    beginning = _word_beginning(vocabulary)
    words: dict[str, int] = {}
    for piece, number in sorted(vocabulary.items(), key=lambda item: item[1]):
        word = _whole_word(tokenizer, piece, beginning)
        if word is not None and number < len(embeddings):
            words.setdefault(word, number)
    blank = " " if beginning else ""

    def vector_of(word: str) -> NDArray[np.float32] | None:
        numbers = tokenizer(blank + word, add_special_tokens=False)["input_ids"]
        if len(numbers) != 1 or numbers[0] == tokenizer.unk_token_id:
            return None
        vector: NDArray[np.float32] = embeddings[numbers[0]]
        return vector

    return NearestWords(list(words), embeddings[list(words.values())], vector_of)


def _word_beginning(vocabulary: Iterable[str]) -> str:
    """The mark of a piece that begins a word; "" in WordPiece, which marks the other pieces."""
    pieces = list(vocabulary)
    if any(piece.startswith("##") for piece in pieces):
        return ""
    return max(("", *WORD_BEGINNINGS), key=lambda m: bool(m) * sum(p.startswith(m) for p in pieces))


def _whole_word(tokenizer: Any, piece: str, beginning: str) -> str | None:
    """The word that a piece of the vocabulary is by itself; None when it is no word or a part."""
    if piece in tokenizer.all_special_tokens or not piece.startswith(beginning):
        return None
    word = tokenizer.convert_tokens_to_string([piece]).strip() if beginning else piece
    return word if is_word(word) else None


def _lengths(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Euclidean length of each row, 1 for a row of zeros: (rows, 1)."""
    lengths: NDArray[np.float32] = np.linalg.norm(vectors, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    return lengths
