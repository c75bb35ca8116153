"""The preview: rows drawn by the seed, their examples as in a run, changed words marked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
from helpers.tiny_models import tiny_split
from tiny_masked import fixed_mlm, proposers_with, settings_with, split_of, tiny_mlm

from factory.augment.masked_lm import MaskedLanguageModel
from factory.augment.preview import preview_lines
from factory.augment.run import augment
from factory.augment.shards import read_augmented
from factory.data.dataset import Split
from factory.recipe.augment import AugmentSettings


def preview(
    train: Split, recipe: AugmentSettings, mlm: MaskedLanguageModel, count: int, **options: Any
) -> list[str]:
    return preview_lines(train, recipe, proposers_with(mlm), count, **options)


def test_before_and_after() -> None:
    train = split_of("The Shop,  my lamps!", "42")
    recipe = settings_with(replace_probability=1.0, candidates=1)
    assert preview(train, recipe, fixed_mlm("parcel", "late"), 20) == [
        "row 0: 1 augmented example, the first:",
        "  - The [Shop],  my [lamps]!",
        "  + The [Parcel],  my [parcel]!",
        "row 1: no augmented example",
        "  - 42",
    ]


def test_both_texts_of_a_pair_are_shown_in_colours() -> None:
    train = split_of("my shop", pairs=["the lamp"])
    recipe = settings_with(replace_probability=1.0, candidates=1, sides="second")
    assert preview(train, recipe, fixed_mlm("late"), 1, colours=True)[1:] == [
        "  - my shop",
        "  + my shop",
        f"  - the {click.style('[lamp]', fg='red')}",
        f"  + the {click.style('[late]', fg='green')}",
    ]


def test_rows_drawn_by_the_seed_and_examples_of_the_whole_run(tmp_path: Path) -> None:
    train = tiny_split("train", 40, seed=5)
    recipe, mlm = settings_with(copies=3), tiny_mlm()
    lines = preview(train, recipe, mlm, 10)
    numbers = [int(line.split()[1][:-1]) for line in lines if line.startswith("row")]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 10
    assert numbers != list(range(10))
    assert preview(train, recipe, mlm, 10) == lines
    other = preview(train, recipe.model_copy(update={"seed": 1}), mlm, 10)
    assert [line for line in other if line[0] == "r"] != [line for line in lines if line[0] == "r"]
    augment(tmp_path, train, recipe, proposers_with(mlm))
    texts, _ = read_augmented(tmp_path)
    shown = [re.sub(r"\[(\w+)\]", r"\1", line[4:]) for line in lines if line.startswith("  +")]
    assert len(shown) == sum("the first:" in line for line in lines) > 5
    assert set(shown) <= set(texts)
