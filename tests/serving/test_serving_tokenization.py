"""Token ids against transformers, the library the model was trained with."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_bundle import VOCABULARY, tiny_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import BundleError, InputError
from serving.tokenization import TextTokenizer

# plain random unicode, and words the vocabulary knows, so that long inputs are common
TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from([*VOCABULARY, "Goodly", "BADNESS", "\u00e9", "\u4e2d"]), max_size=14
    ).map(" ".join),
)
INPUTS = st.one_of(TEXTS, st.tuples(TEXTS, TEXTS))
LENGTHS = (4, 7, 16)


@pytest.fixture(scope="module")
def auto_tokenizer(bundle: Path) -> Any:
    """What transformers makes of the same directory."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(bundle), use_fast=True)


def encode_as_training(tokenizer: Any, item: Any, **options: Any) -> dict[str, list[int]]:
    """One input through the batch form, which is the one used in training.

    The form for one pair reads an empty second text as no second text.
    """
    texts = item if isinstance(item, tuple) else (item,)
    batch = tokenizer(*([text] for text in texts), verbose=False, **options)
    return {name: rows[0] for name, rows in batch.items()}


@cache
def text_tokenizer(max_length: int) -> TextTokenizer:
    """Ours, built once per length."""
    return TextTokenizer(tiny_tokenizer(), max_length)


@settings(max_examples=200, deadline=None)
@given(item=INPUTS, max_length=st.sampled_from(LENGTHS))
def test_ids_equal_those_of_transformers(auto_tokenizer: Any, item: Any, max_length: int) -> None:
    expected = encode_as_training(auto_tokenizer, item, truncation=True, max_length=max_length)
    (encoded,) = text_tokenizer(max_length).encode([item])
    assert encoded.input_ids == expected["input_ids"]
    assert encoded.token_type_ids == expected["token_type_ids"]


@settings(max_examples=100, deadline=None)
@given(item=INPUTS, max_length=st.sampled_from(LENGTHS))
def test_truncated_means_that_the_whole_was_longer(
    auto_tokenizer: Any, item: Any, max_length: int
) -> None:
    whole = len(encode_as_training(auto_tokenizer, item, truncation=False)["input_ids"])
    (encoded,) = text_tokenizer(max_length).encode([item])
    assert encoded.truncated == (whole > max_length)
    assert len(encoded) == min(whole, max_length)


def test_padding_and_truncation_of_the_file_are_ignored(bundle: Path) -> None:
    tokenizer = TextTokenizer.load(bundle / "tokenizer.json", 16)
    encoded = tokenizer.encode(["a good film", "the film was not very good"])
    assert [len(item) for item in encoded] == [5, 8]
    assert tokenizer.pad_id == VOCABULARY.index("[PAD]")


def test_known_ids_of_a_pair() -> None:
    (encoded,) = text_tokenizer(16).encode([("Good film", "bad")])
    words = [VOCABULARY[index] for index in encoded.input_ids]
    assert words == ["[CLS]", "good", "film", "[SEP]", "bad", "[SEP]"]
    assert encoded.token_type_ids == [0, 0, 0, 0, 1, 1]


def test_lone_surrogate_is_an_input_error() -> None:
    with pytest.raises(InputError, match="surrogates"):
        text_tokenizer(16).encode(["fine", "\ud800"])


def test_pad_id_without_stored_padding() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.no_padding()
    assert TextTokenizer(tokenizer, 8).pad_id == VOCABULARY.index("[PAD]")


def test_a_file_that_is_no_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}", "utf-8")
    with pytest.raises(BundleError, match="not a tokenizer"):
        TextTokenizer.load(tmp_path / "tokenizer.json", 16)


@pytest.mark.parametrize(("text_pair", "special"), [(False, 2), (True, 3)])
def test_max_length_must_leave_room_for_text(bundle: Path, text_pair: bool, special: int) -> None:
    path = bundle / "tokenizer.json"
    with pytest.raises(BundleError, match=f"no room beside {special} special tokens"):
        TextTokenizer.load(path, special, text_pair=text_pair)
    TextTokenizer.load(path, special + 1, text_pair=text_pair)
