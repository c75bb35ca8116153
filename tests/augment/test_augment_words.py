"""Words of texts by character offsets, and which of them may be replaced."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
from helpers.non_bert_models import byte_level_tokenizer
from helpers.tiny_models import tiny_tokenizer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from factory.augment.contextual import match_case
from factory.augment.rows import replace_words
from factory.augment.words import SplitText, WordSplitter, is_word, visible_ends


@lru_cache
def splitter(make: Callable[[], Any]) -> WordSplitter:
    return WordSplitter(make())


def split(text: str) -> SplitText:
    (one,) = splitter(tiny_tokenizer).split([text])
    return one


def words_of(text: str) -> list[str]:
    one = split(text)
    return [one.surface(place) for place in range(len(one.words))]


def replaceable(text: str) -> list[str]:
    one = split(text)
    return [one.surface(place) for place, word in enumerate(one.words) if word.replaceable]


@settings(deadline=None, max_examples=50)
@given(text=st.text(), make=st.sampled_from([tiny_tokenizer, byte_level_tokenizer]))
@example("e\u0301a [MASK] ##a [CLS]", tiny_tokenizer)
@example("İstanbul ﬁ 你好\u200dक\u093f \ufffd\x00\u00ad", tiny_tokenizer)
@example("한국어 \u1100\u1161 ≠ \u1fef", tiny_tokenizer)
def test_any_text_can_be_rebuilt_from_its_words(text: str, make: Callable[[], Any]) -> None:
    (one,) = splitter(make).split([text])
    reached = tokens = 0
    rebuilt = ""
    for place, word in enumerate(one.words):
        assert reached <= word.start <= word.end <= len(text)
        assert word.first_token == tokens < word.end_token
        rebuilt += text[reached : word.start] + one.surface(place)
        reached, tokens = word.end, word.end_token
        if word.replaceable:
            assert is_word(one.surface(place))
    assert rebuilt + text[reached:] == text
    assert tokens == len(one.input_ids)


@settings(deadline=None, max_examples=25)
@given(text=st.text(), data=st.data())
def test_all_other_characters_are_preserved(text: str, data: st.DataObject) -> None:
    one = split(text)
    places = [place for place, word in enumerate(one.words) if word.replaceable]
    chosen = sorted(data.draw(st.sets(st.sampled_from(places)))) if places else []
    new, ranges = replace_words(one, [(place, f"new{place}") for place in chosen])
    assert [new[start:end] for start, end in ranges] == [f"new{place}" for place in chosen]
    for (start, end), place in reversed(list(zip(ranges, chosen, strict=True))):
        new = new[:start] + one.surface(place) + new[end:]
    assert new == text


def test_words_punctuation_and_scripts() -> None:
    assert words_of("Well,  a-b 你好 x") == ["Well", ",", "a", "-", "b", "你", "好", "x"]
    assert words_of("cafe\u0301 bar") == ["cafe\u0301", "bar"]
    assert words_of("हिन्दी भाषा") == ["हिन्दी", "भाषा"]
    assert words_of("") == words_of(" \t\x00") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The shop is late", ["shop", "late"]),
        ("THE Shop", ["Shop"]),
        ("42 covid19 3rd lamp", ["lamp"]),
        ("naïve Straße 你好 привет हिन्दी", ["naïve", "Straße", "你", "好", "привет", "हिन्दी"]),
        ("shop's owner", ["shop", "owner"]),
        ("the shop\u2019s owner", ["shop", "owner"]),
        ("don't DON\u2019T couldn't mustn 't", ["mustn"]),
        ("I'd they'll Ann'll let's", ["Ann", "let"]),
        ("vitamin d t m", ["vitamin", "d", "t", "m"]),
        ("vitamin ' d", ["vitamin", "d"]),
        ("[MASK] [UNK] lamp", ["lamp"]),
        ("a\u00adb lamp_shop", ["lamp", "shop"]),
        ("THÉ lamp", ["lamp"]),
    ],
)
def test_only_content_words_are_replaceable(text: str, expected: list[str]) -> None:
    assert replaceable(text) == expected


def test_tokens_of_words() -> None:
    one = split("Shop lamps É 你 shops")
    assert [word.single for word in one.words] == [True, False, True, False, False]
    assert [word.normal for word in one.words] == ["shop", "lamps", "e", "你", "shops"]
    # lamp ##s, and one [UNK]
    tokens = [(word.first_token, word.end_token) for word in one.words]
    assert tokens == [(0, 1), (1, 3), (3, 4), (4, 5), (5, 7)]


def test_a_byte_level_tokenizer_is_replaced() -> None:
    (one,) = splitter(byte_level_tokenizer).split(["Hello, world!"])
    assert [one.surface(place) for place in range(4)] == ["Hello", ",", "world", "!"]
    assert [word.replaceable for word in one.words] == [True, False, True, False]
    assert not any(word.single for word in one.words)


def test_the_truncation_of_a_tokenizer_is_ignored_and_kept() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer("shop " * 9, truncation=True, max_length=4)
    (one,) = WordSplitter(tokenizer).split(["shop " * 9])
    assert len(one.words) == 9
    assert tokenizer.backend_tokenizer.truncation["max_length"] == 4


def test_the_visible_part_of_a_text() -> None:
    tokenizer = tiny_tokenizer()
    assert visible_ends(tokenizer, [["shop lamp shoe", "shop", ""]], 4) == [[9, 4, 0]]
    # longest first: [CLS] shop lamp [SEP] shoe shoe [SEP]
    columns = [["shop lamp late"], ["shoe shoe shoe"]]
    (first,), (second,) = visible_ends(tokenizer, columns, 7)
    assert (first, second) == (9, 9)


@pytest.mark.parametrize(
    ("word", "new", "expected"),
    [
        ("Shop", "lamp", "Lamp"),
        ("SHOP", "lamp", "LAMP"),
        ("shop", "lamp", "lamp"),
        ("shop", "Paris", "Paris"),
        ("Shop", "NASA", "NASA"),
        ("iPhone", "lamp", "lamp"),
        ("X", "lamp", "Lamp"),
        ("Shop", "ßa", "Ssa"),
        ("你", "好", "好"),
        ("Éte", "été", "Été"),
    ],
)
def test_a_new_word_in_the_case_of_the_old_one(word: str, new: str, expected: str) -> None:
    assert match_case(word, new) == expected
