"""The nearest words, compared with a plain loop over all pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from helpers.non_bert_models import byte_level_tokenizer
from helpers.tiny_models import VOCABULARY, tiny_bert, tiny_tokenizer
from numpy.typing import NDArray

from factory.augment import neighbours
from factory.augment.neighbours import NearestWords, embedding_neighbours

WORDS = ["Cat", "dog", "cat", "bird", "fish", "newt", "CAT", "toad", "asp", "ant"]


def plain_neighbours(
    words: Sequence[str], vectors: NDArray[np.float64], word: str, query: NDArray[np.float64]
) -> list[str]:
    """All other words by cosine, one product at a time; equal ones in the list's order."""
    cosines = []
    for position, vector in enumerate(vectors):
        length = float(np.sqrt((vector * vector).sum() * (query * query).sum()))
        cosines.append((-float((vector * query).sum()) / length, position))
    ranked = [words[position] for _, position in sorted(cosines)]
    return [other for other in ranked if other.lower() != word.lower()]


def table(vectors: NDArray[np.float32], words: Sequence[str] = WORDS) -> NearestWords:
    kept = vectors.copy()
    numbers = {word: number for number, word in enumerate(words)}
    return NearestWords(
        words, vectors.copy(), lambda word: kept[numbers[word]] if word in numbers else None
    )


def random_vectors(rows: int, width: int = 6) -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(size=(rows, width)).astype(np.float32)


def test_the_nearest_words_equal_those_of_a_plain_loop() -> None:
    vectors = random_vectors(len(WORDS))
    expected = [
        plain_neighbours(WORDS, vectors.astype(float), word, vectors[number].astype(float))[:4]
        for number, word in enumerate(WORDS)
    ]
    assert table(vectors).neighbours(WORDS, 4) == expected


def test_the_word_itself_is_left_out_in_any_case() -> None:
    vectors = np.ones((len(WORDS), 3), dtype=np.float32)
    (found,) = table(vectors).neighbours(["cat"], 20)
    assert found == ["dog", "bird", "fish", "newt", "toad", "asp", "ant"]  # ties: the list's order


def test_fewer_words_than_requested_and_unknown_words() -> None:
    near = table(random_vectors(3), ["a", "b", "c"])
    found = near.neighbours(["a", "nowhere", "b"], 15)
    assert (sorted(found[0]), found[1], sorted(found[2])) == (["b", "c"], [], ["a", "c"])
    assert near.neighbours([], 15) == []
    assert table(random_vectors(1), ["a"]).neighbours(["a"], 15) == [[]]


def test_a_vector_of_zeros_has_no_neighbours_and_ranks_last() -> None:
    vectors = np.array([[0, 0], [1, 0.1], [1, 0]], dtype=np.float32)
    found = table(vectors, ["zero", "east", "right"]).neighbours(["zero", "east"], 2)
    assert found == [[], ["right", "zero"]]


def test_neighbours_do_not_depend_on_the_other_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of nearly equal cosines, whose float32 products differ with the block's size."""
    random = np.random.default_rng(5)
    vectors = (1 + 1e-7 * random.normal(size=(1000, 96))).astype(np.float32)
    words = [f"w{number}" for number in range(1000)]
    queries = words[:20]
    together = table(vectors, words).neighbours(queries, 10)
    alone = table(vectors, words)
    assert [alone.neighbours([word], 10)[0] for word in queries] == together
    monkeypatch.setattr(neighbours, "BLOCK_COSINES", 7 * 1000)
    assert table(vectors, words).neighbours(queries, 10) == together


# the teacher's embeddings


def test_embeddings_of_whole_words() -> None:
    model, tokenizer = tiny_bert(), tiny_tokenizer()
    matrix = model.bert.embeddings.word_embeddings.weight.detach().double().numpy()
    words = [w for w in VOCABULARY if w.isalpha()]
    assert {"thanks", "parcel", "b"} <= set(words)
    vectors = np.stack([matrix[VOCABULARY.index(word)] for word in words])
    before = matrix.copy()
    near = embedding_neighbours(model, tokenizer)
    assert (model.get_input_embeddings().weight.detach().double().numpy() == before).all()
    for word in ("refund", "b"):
        expected = plain_neighbours(words, vectors, word, matrix[VOCABULARY.index(word)])
        assert near.neighbours([word, word.upper()], 15) == [expected[:15]] * 2
    # several tokens, [UNK], and no text
    assert near.neighbours(["shops", "ж", ""], 5) == [[], [], []]


def test_the_vocabulary_of_byte_level_bpe() -> None:
    """A mark shows the tokens that begin a word."""
    tokenizer = byte_level_tokenizer()
    model = tiny_bert(vocab_size=len(tokenizer))
    matrix = model.get_input_embeddings().weight.detach().double().numpy()
    vocabulary = tokenizer.get_vocab()
    begun = {piece[1:]: n for piece, n in vocabulary.items() if piece.startswith("Ġ")}
    words = [word for word in sorted(begun, key=begun.__getitem__) if word.isalpha()]
    assert {"parcel", "the"} <= set(words)
    vectors = np.stack([matrix[begun[word]] for word in words])
    near = embedding_neighbours(model, tokenizer)
    expected = plain_neighbours(words, vectors, "parcel", matrix[begun["parcel"]])
    assert near.neighbours(["parcel"], 9) == [expected[:9]]
