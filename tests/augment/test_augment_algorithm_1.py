"""Algorithm 1 of the paper, compared with a plain loop over copies and words."""

from __future__ import annotations

from collections import Counter

from helpers.tiny_models import VOCABULARY, tiny_split, tiny_tokenizer
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

from factory.augment.algorithm_1 import Algorithm1
from factory.augment.masked_lm import MaskedLanguageModel
from factory.augment.rows import Drawn
from factory.augment.words import WordSplitter
from factory.data.dataset import Split
from factory.recipe.augment import AugmentSettings


def draw(
    train: Split, recipe: AugmentSettings, mlm: MaskedLanguageModel, **neighbours: ListedNeighbours
) -> Drawn:
    """Examples of all rows."""
    mode = Algorithm1(recipe, proposers_with(mlm, **neighbours), WordSplitter(mlm.tokenizer))
    return mode.draw(source_of_rows(train), recipe.copies or 1)


def texts_of(drawn: Drawn) -> list[str]:
    return [example.texts[0] for example in drawn.examples]


def plain_algorithm(
    train: Split, recipe: AugmentSettings, mlm: MaskedLanguageModel, nearest: dict[str, list[str]]
) -> list[str]:
    """The paper's loop: a copy, its words from left to right, one forward pass for each word."""
    found = []
    for row, original in enumerate(train.texts):
        split = source_of_rows(split_of(original)).sides[0][0]
        for copy in range(recipe.copies or 0):
            words = original.split()
            for place, word in enumerate(original.split()):
                if not split.words[place].replaceable:
                    continue
                candidates = nearest.get(word, [])
                if word in VOCABULARY:
                    ranked = ranked_words(mlm, words, place)
                    candidates = [w for w in ranked if not w.startswith(("##", "["))]
                p = plain_draw(recipe, row, copy, place)
                if p <= recipe.replace_probability and candidates:
                    best = candidates[: recipe.candidates]
                    words[place] = plain_choice(recipe, row, copy, place, best)
            found.append(" ".join(words))
    return found


NEAREST = {"parcels": ["letters", "shop", "boxes"], "lamps": ["lights", "shoes"]}


def long_words(train: Split) -> Split:
    """Some words of one piece become words of two."""
    texts = [text.replace("parcel", "parcels").replace("lamp", "lamps") for text in train.texts]
    return Split("train", texts, None, train.targets)


def test_the_examples_equal_those_of_a_plain_loop() -> None:
    train = long_words(tiny_split("train", 25, seed=3))
    recipe = settings_with(mode="paper", sources=["mlm", "embeddings"], copies=4, candidates=3)
    mlm = tiny_mlm()
    drawn = draw(train, recipe, mlm, embeddings=listed(**NEAREST))
    expected = plain_algorithm(train, recipe, mlm, NEAREST)
    changed = [text for row, text in enumerate(expected) if text != train.texts[row // 4]]
    found = [v.texts[0] for v in drawn.examples if v.texts[0] != train.texts[v.source_row]]
    assert found == changed
    assert len(found) > 60
    assert drawn.replaced["embeddings"] > 5


def test_the_word_itself_and_punctuation_are_candidates_but_not_continuations() -> None:
    recipe = settings_with(mode="paper", copies=80, replace_probability=1.0, candidates=3)
    mlm = fixed_mlm("##e", "[SEP]", ".", "shop", "7", "late")
    drawn = draw(split_of("The  Shop!"), recipe, mlm)
    # the case is not adapted
    assert set(texts_of(drawn)) == {"The  .!", "The  shop!", "The  7!"}


def test_words_of_several_tokens_come_from_the_other_sources_in_order() -> None:
    recipe = AugmentSettings(
        mode="paper",
        sources=["mlm", "vectors", "embeddings"],
        mlm="any",
        vectors="any",
        copies=3,
        replace_probability=1.0,
        candidates=1,
    )
    drawn = draw(
        split_of("Lamps shops parcels shop"),
        recipe,
        fixed_mlm("late"),
        vectors=listed(lamps=["lights"], shop=["boutique"]),
        embeddings=listed(lamps=["bulbs"], shops=["stores"]),
    )
    assert set(texts_of(drawn)) == {"lights stores parcels late"}
    assert drawn.replaced == {"mlm": 3, "vectors": 3, "embeddings": 3}
    alone = recipe.model_copy(update={"sources": ["mlm"]})
    drawn = draw(split_of("Lamps shop"), alone, fixed_mlm("late"))
    assert set(texts_of(drawn)) == {"Lamps late"}


def test_a_longer_word_moves_later_words_beyond_the_models_limit() -> None:
    recipe = settings_with(
        mode="paper",
        sources=["mlm", "embeddings"],
        copies=1,
        replace_probability=1.0,
        candidates=1,
    )
    # [CLS], 19 marks, lamps (2 tokens), shop and [SEP] are 24 tokens
    text = "! " * 19 + "lamps shop"
    short = draw(split_of(text), recipe, fixed_mlm("late"), embeddings=listed(lamps=["lights"]))
    longer = draw(split_of(text), recipe, fixed_mlm("late"), embeddings=listed(lamps=["shop"]))
    assert len(tiny_tokenizer().tokenize("lights")) == 6
    assert texts_of(short) == ["! " * 19 + "lights shop"]
    assert texts_of(longer) == ["! " * 19 + "shop late"]


def test_no_word_to_replace() -> None:
    drawn = draw(split_of("", "42", "the"), settings_with(mode="paper", copies=2), fixed_mlm())
    assert drawn == Drawn([], Counter())
