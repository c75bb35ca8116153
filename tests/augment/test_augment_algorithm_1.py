"""Algorithm 1 of the paper, against a plain loop that walks one copy at a time."""

from __future__ import annotations

from collections import Counter

import numpy as np
from helpers.tiny_models import VOCABULARY, tiny_split, tiny_tokenizer
from tiny_masked import (
    ListedNeighbours,
    fixed_mlm,
    listed,
    proposers_with,
    settings_with,
    source_of_rows,
    split_of,
    tiny_mlm,
)

from factory.augment import keyed_rng
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
    words_of_bert = [
        number
        for number, text in enumerate(VOCABULARY)
        if not text.startswith("##") and text not in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    ]
    found = []
    for row, original in enumerate(train.texts):
        split = source_of_rows(split_of(original)).sides[0][0]
        for copy in range(recipe.copies or 0):
            words = original.split()
            for place, word in enumerate(original.split()):
                if not split.words[place].replaceable:
                    continue
                if word in VOCABULARY:
                    masked = " ".join([*words[:place], "[MASK]", *words[place + 1 :]])
                    encoded = mlm.tokenizer(masked, return_tensors="pt")
                    at = encoded["input_ids"][0].tolist().index(mlm.tokenizer.mask_token_id)
                    logits = mlm.model(**encoded).logits[0, at].detach().numpy()
                    best = sorted(words_of_bert, key=lambda n: -logits[n])[: recipe.candidates]
                    candidates = [VOCABULARY[number] for number in best]
                else:
                    candidates = nearest.get(word, [])[: recipe.candidates]
                p = keyed_rng.uniform(
                    keyed_rng.random_bits(recipe.seed, keyed_rng.REPLACE, [row], copy, 0, place)
                )[0]
                if p <= recipe.replace_probability and candidates:
                    bits = keyed_rng.random_bits(
                        recipe.seed, keyed_rng.CHOICE, [row], copy, 0, place
                    )
                    known = np.array([[keyed_rng.text_key(text) for text in candidates]], np.uint64)
                    rank = keyed_rng.choose(bits, known, np.ones_like(known, bool))[0]
                    words[place] = candidates[rank]
            found.append(" ".join(words))
    return found


NEAREST = {"parcels": ["letters", "shop", "boxes"], "lamps": ["lights", "shoes"]}


def long_words(train: Split) -> Split:
    """Some words of one piece become words of two."""
    texts = [text.replace("parcel", "parcels").replace("lamp", "lamps") for text in train.texts]
    return Split("train", texts, None, train.targets)


def test_the_examples_are_those_of_the_papers_loop() -> None:
    train = long_words(tiny_split("train", 25, seed=3))
    recipe = settings_with(mode="paper", sources=["mlm", "embeddings"], copies=4, candidates=3)
    mlm = tiny_mlm()
    drawn = draw(train, recipe, mlm, embeddings=listed(**NEAREST))
    expected = plain_algorithm(train, recipe, mlm, NEAREST)
    changed = [text for row, text in enumerate(expected) if text != train.texts[row // 4]]
    # a copy whose every word was replaced by itself is there, one without a replacement is not
    found = [v.texts[0] for v in drawn.examples if v.texts[0] != train.texts[v.source_row]]
    assert found == changed
    assert len(found) > 60
    assert drawn.replaced["embeddings"] > 5


def test_the_model_sees_the_text_as_already_modified() -> None:
    mlm = tiny_mlm()
    recipe = settings_with(mode="paper", copies=6, replace_probability=1.0, candidates=1)
    train = split_of("shop late shoe")
    one = draw(train, recipe, mlm)
    # with the one most probable candidate every copy is the same, and the loop can be written out
    words = ["shop", "late", "shoe"]
    for place in range(3):
        masked = " ".join([*words[:place], "[MASK]", *words[place + 1 :]])
        encoded = mlm.tokenizer(masked, return_tensors="pt")
        logits = mlm.model(**encoded).logits[0, place + 1].detach().numpy()
        ranked = [VOCABULARY[n] for n in np.argsort(-logits) if not VOCABULARY[n].startswith("##")]
        words[place] = next(text for text in ranked if not text.startswith("["))
    assert texts_of(one) == [" ".join(words)] * 6


def test_pieces_and_special_tokens_are_no_words_but_the_word_itself_and_marks_are() -> None:
    recipe = settings_with(mode="paper", copies=80, replace_probability=1.0, candidates=3)
    mlm = fixed_mlm("##e", "[SEP]", ".", "shop", "7", "late")
    drawn = draw(split_of("The  Shop!"), recipe, mlm)
    # neither case nor anything else is made to fit
    assert set(texts_of(drawn)) == {"The  .!", "The  shop!", "The  7!"}


def test_words_of_several_pieces_come_from_the_other_sources_in_order() -> None:
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


def test_each_word_is_replaced_with_the_probability_of_the_recipe() -> None:
    recipe = settings_with(mode="paper", copies=400, replace_probability=0.25, candidates=1)
    drawn = draw(split_of("shop lamp shoe", "the 42 it"), recipe, fixed_mlm("late"))
    assert abs(drawn.replaced["mlm"] / 1200 - 0.25) < 0.05
    unchanged = 400 - len(drawn.examples)
    assert abs(unchanged / 400 - 0.75**3) < 0.08
    assert {example.source_row for example in drawn.examples} == {0}


def test_a_longer_word_pushes_later_ones_out_of_what_the_model_reads() -> None:
    recipe = settings_with(
        mode="paper",
        sources=["mlm", "embeddings"],
        copies=1,
        replace_probability=1.0,
        candidates=1,
    )
    # [CLS], 20 marks, lamps (2 pieces), shop, [SEP] is 24 tokens; with ten pieces it is 32
    text = "! " * 19 + "lamps shop"
    short = draw(split_of(text), recipe, fixed_mlm("late"), embeddings=listed(lamps=["lights"]))
    longer = draw(split_of(text), recipe, fixed_mlm("late"), embeddings=listed(lamps=["shop"]))
    assert len(tiny_tokenizer().tokenize("lights")) == 6
    assert texts_of(short) == ["! " * 19 + "lights shop"]
    assert texts_of(longer) == ["! " * 19 + "shop late"]


def test_no_word_to_replace() -> None:
    drawn = draw(split_of("", "42", "the"), settings_with(mode="paper", copies=2), fixed_mlm())
    assert drawn == Drawn([], 0, Counter())


def test_pairs_keep_their_partner() -> None:
    recipe = settings_with(mode="paper", copies=40, sides="any", replace_probability=1.0)
    train = split_of("shop", "shoe", pairs=["parcel", "lamp"])
    drawn = draw(train, recipe.model_copy(update={"candidates": 1}), fixed_mlm("late"))
    found = {(example.source_row, example.texts) for example in drawn.examples}
    assert found == {
        (0, ("late", "parcel")),
        (0, ("shop", "late")),
        (0, ("late", "late")),
        (1, ("late", "lamp")),
        (1, ("shoe", "late")),
        (1, ("late", "late")),
    }
