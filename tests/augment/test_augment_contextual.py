"""The corrected mode: its rules one by one, and its examples compared with a plain loop."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from helpers.tiny_models import VOCABULARY, tiny_split
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_masked import (
    ListedNeighbours,
    fixed_mlm,
    listed,
    plain_choice,
    plain_draw,
    proposers_with,
    ranked_words,
    settings_with,
    source_of_rows,
    split_of,
    tiny_mlm,
)

from factory.augment.contextual import ContextualMode, hidden_together
from factory.augment.masked_lm import MaskedLanguageModel, WordGuesser
from factory.augment.rows import AugmentedExample, Drawn
from factory.data.dataset import Split
from factory.recipe.augment import AugmentSettings


def draw(
    train: Split,
    recipe: AugmentSettings,
    mlm: MaskedLanguageModel | None = None,
    **neighbours: ListedNeighbours,
) -> Drawn:
    """Examples of all rows."""
    mode = ContextualMode(recipe, proposers_with(mlm, **neighbours))
    return mode.draw(source_of_rows(train), recipe.copies or 1)


def texts_of(drawn: Drawn) -> list[str]:
    return [example.texts[0] for example in drawn.examples]


def test_candidates_case_spacing_and_punctuation() -> None:
    """Only words are candidates, and never the word itself in any case or without its accents."""
    mlm = fixed_mlm("##e", "[PAD]", ".", "7", "shop", "lamp", "shoe", "parcel")
    recipe = settings_with(copies=60, candidates=2, replace_probability=1.0)
    drawn = draw(split_of("The Shop is BROKEN,  my\tlamps: lamp!"), recipe, mlm)
    found = [
        re.fullmatch(r"The (\w+) is (\w+),  my\t(\w+): (\w+)!", text) for text in texts_of(drawn)
    ]
    assert all(found)
    by_place = [{match.group(place) for match in found if match} for place in range(1, 5)]
    assert by_place == [
        {"Lamp", "Shoe"},
        {"SHOP", "LAMP"},
        {"shop", "lamp"},
        {"shop", "shoe"},
    ]
    assert drawn.replaced == {"mlm": 240}
    accented = settings_with(copies=20, candidates=1, replace_probability=1.0)
    drawn = draw(split_of("Shóp"), accented, fixed_mlm("shop", "lamp"))
    assert set(texts_of(drawn)) == {"Lamp"}


def plain_examples(train: Split, recipe: AugmentSettings, mlm: MaskedLanguageModel) -> list[str]:
    """One word hidden at a time in the original text, one forward pass each, no batch."""
    found = []
    for row, text in enumerate(train.texts):
        split = source_of_rows(split_of(text)).sides[0][0]
        places = [place for place, word in enumerate(split.words) if word.replaceable]
        for copy in range(recipe.copies or 0):
            draws = {place: plain_draw(recipe, row, copy, place) for place in places}
            chosen = [p for p in places if draws[p] <= recipe.replace_probability]
            chosen = chosen or sorted(places, key=draws.__getitem__)[:1]
            words = text.split()
            for place in chosen:
                ranked = ranked_words(mlm, text.split(), place)
                others = [w for w in ranked if w.isalpha() and w != words[place]]
                words[place] = plain_choice(recipe, row, copy, place, others[: recipe.candidates])
            if chosen:
                found.append(" ".join(words))
    return found


def test_the_examples_equal_those_of_a_plain_loop() -> None:
    train = tiny_split("train", 25, seed=3)
    recipe = settings_with(copies=3, candidates=4, masked_share=1e-6, replace_probability=0.4)
    mlm = tiny_mlm()
    drawn = draw(train, recipe, mlm)
    expected = plain_examples(train, recipe, mlm)
    assert texts_of(drawn) == expected
    assert len(set(expected)) > 60
    again = draw(train, recipe.model_copy(update={"seed": 43}), mlm)
    assert texts_of(again) != expected


def test_the_model_never_reads_the_word_it_replaces() -> None:
    mlm = tiny_mlm()
    seen: list[list[str]] = []

    def remember(_: Any, __: Any, options: dict[str, Any]) -> None:
        for ids, mask in zip(options["input_ids"], options["attention_mask"], strict=True):
            seen.append([VOCABULARY[number] for number in ids[: int(mask.sum())]])

    mlm.model.bert.register_forward_pre_hook(remember, with_kwargs=True)
    train = split_of("shop lamp shoe", pairs=["late shop"])
    draw(train, settings_with(copies=1, replace_probability=1.0, sides="first"), mlm)
    assert sorted(seen) == sorted(
        [
            ["[CLS]", "[MASK]", "lamp", "shoe", "[SEP]"],
            ["[CLS]", "shop", "[MASK]", "shoe", "[SEP]"],
            ["[CLS]", "shop", "lamp", "[MASK]", "[SEP]"],
        ]
    )


def test_candidates_are_computed_only_for_replaced_words(monkeypatch: pytest.MonkeyPatch) -> None:
    guessed = 0
    guess = WordGuesser.guess

    def counted(self: WordGuesser, texts: Any, count: int) -> Any:
        nonlocal guessed
        guessed += sum(len(text.positions) for text in texts)
        return guess(self, texts, count)

    monkeypatch.setattr(WordGuesser, "guess", counted)
    train = tiny_split("train", 60, seed=3)
    drawn = draw(train, settings_with(copies=1, replace_probability=0.2), tiny_mlm())
    words = len(source_of_rows(train))
    assert guessed == sum(drawn.replaced.values()) < 0.5 * words


@settings(deadline=None, max_examples=25)
@given(count=st.integers(1, 60), share=st.floats(0.01, 1.0), seed=st.integers(0, 9))
def test_words_hidden_together(count: int, share: float, seed: int) -> None:
    source = source_of_rows(split_of("lamp", " ".join(["shop"] * count)), 100)
    words = np.arange(len(source))
    recipe = settings_with(masked_share=share, seed=seed)
    groups = hidden_together(source, words, recipe)
    assert groups == hidden_together(source, words, recipe)
    assert groups[0] == [0]
    assert sorted(word for group in groups for word in group) == words.tolist()
    most = max(1, round(share * count))
    passes = -(-count // most)
    assert len(groups) == 1 + passes
    assert max(map(len, groups)) <= most
    for group in groups[1:]:
        assert group == sorted(group)
        # one word of each stretch of `passes` words in reading order
        assert len({(word - 1) // passes for word in group}) == len(group)


def test_the_share_is_of_all_words_and_punctuation() -> None:
    """Ten, of which four may be replaced: two at once."""
    source = source_of_rows(split_of("the shop , the lamp , a shoe , parcel"))
    groups = hidden_together(source, np.arange(len(source)), settings_with(masked_share=0.2))
    assert len(source) == 4
    assert sorted(map(len, groups)) == [2, 2]


def test_a_copy_without_a_replacement_gets_one() -> None:
    train = split_of("shop lamp shoe parcel late", "the a my", "lamp")
    recipe = settings_with(copies=30, replace_probability=1e-9)
    drawn = draw(train, recipe, tiny_mlm())
    assert Counter(example.source_row for example in drawn.examples) == {0: 30, 2: 30}
    assert all(len(example.changed[0]) == 1 for example in drawn.examples)
    places = Counter(
        example.changed[0][0][0] for example in drawn.examples if not example.source_row
    )
    assert len(places) == 5  # any of the words, not always the same


def test_that_replacement_is_of_a_word_with_candidates() -> None:
    recipe = AugmentSettings(vectors="any", sources=["vectors"], copies=30, replace_probability=0.1)
    drawn = draw(split_of("shop lamp shoe"), recipe, vectors=listed(lamp=["light"]))
    assert texts_of(drawn) == ["shop light shoe"] * 30
    assert draw(split_of("shop shoe"), recipe, vectors=listed(lamp=["light"])).examples == []


def test_the_first_source_with_candidates_decides() -> None:
    vectors = listed(shop=["boutique"], late=["late", "##er", "42", "LATE"], lamp=[])
    embeddings = listed(lamp=["light"], shop=["store"], late=["tardy"])
    recipe = AugmentSettings(
        mlm="any",
        vectors="any",
        sources=["vectors", "embeddings", "mlm"],
        copies=4,
        replace_probability=1.0,
        candidates=1,
    )
    drawn = draw(
        split_of("Shop lamp late shoe"),
        recipe,
        fixed_mlm("parcel"),
        vectors=vectors,
        embeddings=embeddings,
    )
    assert set(texts_of(drawn)) == {"Boutique light tardy parcel"}
    assert drawn.replaced == {"vectors": 4, "embeddings": 8, "mlm": 4}
    # as written, then in lower case; the second source only for words missing in the first
    assert vectors.looked_up == ["Shop", "lamp", "late", "shoe", "shop"]
    assert embeddings.looked_up == ["lamp", "late", "shoe"]
    first = recipe.model_copy(update={"sources": ["mlm", "vectors", "embeddings"]})
    drawn = draw(
        split_of("Shop lamp"), first, fixed_mlm("parcel"), vectors=vectors, embeddings=embeddings
    )
    assert set(texts_of(drawn)) == {"Parcel parcel"}


def test_words_beyond_the_models_limit_come_from_the_next_source() -> None:
    recipe = AugmentSettings(
        mlm="any", vectors="any", copies=1, replace_probability=1.0, candidates=1
    )
    # the model reads 32 tokens, the student 100
    vectors = listed(lamp=["light"], shoe=["boot"])
    known = proposers_with(fixed_mlm("parcel"), 100, vectors=vectors, embeddings=listed())
    source = source_of_rows(split_of("4 " * 29 + "lamp shoe"), 100)
    drawn = ContextualMode(recipe, known).draw(source, 1)
    assert texts_of(drawn) == ["4 " * 29 + "parcel boot"]


def test_repeated_words_are_looked_up_once() -> None:
    vectors = listed(lamp=["light"])
    recipe = AugmentSettings(vectors="any", sources=["vectors"], copies=1, replace_probability=1.0)
    mode = ContextualMode(recipe, proposers_with(vectors=vectors))
    for _ in range(2):
        mode.draw(source_of_rows(split_of("lamp lamp", "lamp")), 1)
    assert vectors.looked_up == ["lamp"]


PAIRS = split_of(
    "shop lamp", "late shoe", "42", pairs=["parcel parcel", "broken lamp", "glad shop"]
)


def sides_of(example: AugmentedExample) -> tuple[bool, bool]:
    first, second = example.changed
    return bool(first), bool(second)


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ("first", {(True, False)}),
        ("second", {(False, True)}),
        ("both", {(True, True)}),
        ("any", {(True, False), (False, True), (True, True)}),
    ],
)
def test_the_changed_sides_of_a_pair(sides: str, expected: set[tuple[bool, bool]]) -> None:
    assert PAIRS.text_pairs is not None
    recipe = settings_with(copies=30, sides=sides, replace_probability=1e-9)
    drawn = draw(PAIRS, recipe, tiny_mlm())
    two_sided = [example for example in drawn.examples if example.source_row < 2]
    assert Counter(example.source_row for example in two_sided) == {0: 30, 1: 30}
    assert {sides_of(example) for example in two_sided} == expected
    for example in drawn.examples:
        originals = PAIRS.texts[example.source_row], PAIRS.text_pairs[example.source_row]
        for text, original, changed in zip(example.texts, originals, example.changed, strict=True):
            assert (text == original) == (not changed)
            assert len(changed) <= 1
            if not changed:
                continue
            assert sum(a == b for a, b in zip(text.split(), original.split(), strict=True)) == 1
    # the third row has words on its second side only
    alone = [example for example in drawn.examples if example.source_row == 2]
    assert len(alone) == (0 if sides == "first" else 30)
    assert {sides_of(example) for example in alone} <= {(False, True)}


def test_any_side_is_as_likely_as_the_others() -> None:
    recipe = settings_with(copies=600, sides="any", replace_probability=1.0)
    drawn = draw(split_of("shop", pairs=["lamp"]), recipe, fixed_mlm("late"))
    found = Counter(sides_of(example) for example in drawn.examples)
    assert all(abs(count - 200) < 50 for count in found.values())


def test_words_beyond_max_length_are_not_replaced() -> None:
    source = source_of_rows(split_of("shop lamp shoe parcel"), 4)
    assert [source.surface(word) for word in range(len(source))] == ["shop", "lamp"]


def test_no_word_to_replace() -> None:
    recipe = settings_with(copies=3)
    drawn = draw(split_of("", "42 !", "the a"), recipe, fixed_mlm())
    assert drawn == Drawn([], Counter())
