"""The stage: the same bytes after a kill, no duplicates, limits per class, and reading back."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import augment_processes
import numpy as np
import pyarrow.parquet
import pytest
from helpers.forked import Forks
from helpers.tiny_models import tiny_multilabel, tiny_regression, tiny_split
from tiny_masked import (
    ListedNeighbours,
    fixed_mlm,
    listed,
    proposers_with,
    settings_with,
    split_of,
    tiny_mlm,
)

from factory.augment import masked_lm, shards
from factory.augment import run as run_module
from factory.augment.masked_lm import MaskedLanguageModel
from factory.augment.run import ExampleMaker, augment, copies_for
from factory.augment.shards import read_augmented
from factory.data.dataset import Split
from factory.errors import RecipeError
from factory.recipe.augment import AugmentSettings

WORK = "augment_processes:work"
# Rows that differ in one word, so that examples of some equal others, or examples of others.
WORDS = ("shop", "lamp", "shoe", "late", "parcel", "refund", "broken", "love")
ALIKE = [f"{first} the {second}" for first in WORDS for second in WORDS]


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "PART_ROWS", 8)
    monkeypatch.setattr(shards, "SHARD_ROWS", 50)


def run(
    directory: Path,
    train: Split,
    recipe: AugmentSettings,
    mlm: MaskedLanguageModel | None = None,
    **neighbours: ListedNeighbours,
) -> dict[str, Any]:
    """The whole stage."""
    return augment(directory, train, recipe, proposers_with(mlm, **neighbours))


def contents(directory: Path) -> dict[str, bytes]:
    return {
        file.relative_to(directory).as_posix(): file.read_bytes()
        for file in directory.rglob("*")
        if file.is_file()
    }


def rows_of(directory: Path) -> list[dict[str, Any]]:
    """All examples, read by pyarrow alone."""
    files = sorted(directory.glob("augmented-*.parquet"))
    return [row for file in files for row in pyarrow.parquet.ParquetFile(file).read().to_pylist()]


@pytest.fixture
def parts_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "PART_ROWS", augment_processes.PART_ROWS)
    monkeypatch.setattr(shards, "SHARD_ROWS", augment_processes.SHARD_ROWS)


def augmented_here(directory: Path, mode: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Facts and files of one process."""
    directory.mkdir(exist_ok=True)
    return augment_processes.augment_rows(directory, mode), contents(directory)


def test_a_killed_run_writes_the_same_bytes(
    forks: Forks, tmp_path: Path, parts_of_processes: None
) -> None:
    expected = augmented_here(tmp_path / "whole", "corrected")
    files = sorted(expected[1])
    assert files == [*(f"augmented-0000{n}.parquet" for n in range(4)), "index.json"]
    cut = tmp_path / "cut"
    # of 7 parts: two processes, each killed in its 2nd; one killed in its 2nd shard
    for count, kill_at, finished in ((2, 2, 2), (1, 7, augment_processes.PARTS)):
        assert forks.start(count, WORK, cut, kill_at).finish() == [-signal.SIGKILL] * count
        assert len(list(cut.glob("parts/part-*"))) == finished
        assert len(list(cut.glob("**/.*.tmp"))) >= count  # killed in the middle of a file
        assert not (cut / "index.json").exists()
    assert augmented_here(cut, "corrected") == expected


@pytest.mark.parametrize("mode", ["corrected", "paper"])
def test_the_batch_size_does_not_change_the_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts_of_processes: None, mode: str
) -> None:
    expected = augmented_here(tmp_path / "large", mode)
    monkeypatch.setattr(masked_lm, "CPU_BATCH_TOKENS", 50)
    assert augmented_here(tmp_path / "small", mode) == expected


def test_finished_parts_are_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_parts: None
) -> None:
    train, recipe = tiny_split("train", 30, seed=5), settings_with(copies=2)
    made: list[range] = []
    make = ExampleMaker.make

    def interrupted(self: ExampleMaker, rows: range) -> Any:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(rows)
        return make(self, rows)

    monkeypatch.setattr(ExampleMaker, "make", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, train, recipe, tiny_mlm())
    assert made == [range(8), range(8, 16)]
    made.clear()
    run(tmp_path, train, recipe, tiny_mlm())
    assert made == [range(16, 24), range(24, 30)]
    made.append(range(0))  # another part would raise
    run(tmp_path, train, recipe, tiny_mlm())


def test_a_kill_between_the_index_and_the_removal_of_the_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_parts: None
) -> None:
    train, recipe = tiny_split("train", 30, seed=5), settings_with(copies=2)
    with monkeypatch.context() as patch:
        patch.setattr(run_module.shutil, "rmtree", lambda *_, **__: None)
        facts = run(tmp_path, train, recipe, tiny_mlm())
    assert (tmp_path / "parts").exists()
    before = contents(tmp_path)
    assert run(tmp_path, train, recipe, tiny_mlm()) == facts
    kept = {name: data for name, data in before.items() if not name.startswith("parts")}
    assert contents(tmp_path) == kept


def test_examples_of_a_row_are_distinct() -> None:
    recipe = settings_with(copies=300, candidates=2)
    train = split_of("shop lamp", "shoe")
    mlm = fixed_mlm("late", "love")
    maker = ExampleMaker(train, recipe, proposers_with(mlm))
    examples, counts = maker.make(range(2))
    found = [(example.source_row, example.texts[0]) for example in examples]
    assert len(found) == len(set(found)) == 8 + 2
    assert counts["duplicate"] == counts["drawn"] - counts["unchanged"] - 10


def plainly_distinct(train: Split, recipe: AugmentSettings, mlm: MaskedLanguageModel) -> list[Any]:
    """Distinct examples, with a set of all texts."""
    maker = ExampleMaker(train, recipe, proposers_with(mlm))
    seen = {(text,) for text in train.texts}
    kept = []
    for row in range(len(train)):
        for example in maker.make(range(row, row + 1))[0]:
            if example.texts not in seen:
                seen.add(example.texts)
                kept.append(example)
    return kept


def test_no_duplicates_of_examples_or_rows(tmp_path: Path, small_parts: None) -> None:
    train = split_of(*ALIKE[:50], *ALIKE[:3])
    recipe = settings_with(copies=6, candidates=8)
    mlm = fixed_mlm(*WORDS)
    facts = run(tmp_path, train, recipe, mlm)
    expected = plainly_distinct(train, recipe, mlm)
    found = rows_of(tmp_path)
    assert [(row["source_row"], row["copy"], row["text"]) for row in found] == [
        (example.source_row, example.copy, example.texts[0]) for example in expected
    ]
    assert 0 < len(found) < 60
    assert facts == {
        "rows": 53,
        "copies": 6,
        "examples": len(found),
        "dropped": {"unchanged": 0, "duplicate": 53 * 6 - len(found), "cap": 0},
        "words_replaced": facts["words_replaced"],
        "replaced_by_source": facts["replaced_by_source"],
        "shards": 1,
    }
    total = 53 * 6 * 2
    assert facts["words_replaced"] == round(facts["replaced_by_source"]["mlm"] / total, 6)
    assert 0.4 < facts["words_replaced"] < 0.75


@pytest.mark.parametrize("mode", ["corrected", "paper"])
def test_changed_ranges_and_pairs_are_written_and_read(
    tmp_path: Path, small_parts: None, mode: str
) -> None:
    train = tiny_regression(50).train
    assert train.text_pairs is not None
    recipe = settings_with(mode=mode, copies=3, sides="any")
    facts = run(tmp_path, train, recipe, tiny_mlm())
    rows = rows_of(tmp_path)
    assert facts["examples"] == len(rows) > 80
    assert facts["shards"] == -(-len(rows) // 50)
    inputs, sources = read_augmented(tmp_path)
    assert inputs == [(row["text"], row["text_pair"]) for row in rows]
    assert sources.dtype == np.int32
    assert sources.tolist() == [row["source_row"] for row in rows]
    for row in rows:
        for name, texts in (("", train.texts), ("_pair", train.text_pairs)):
            expected, reached = [], 0
            words = row[f"text{name}"].split(" ")
            for word, original in zip(words, texts[row["source_row"]].split(" "), strict=True):
                if word != original:
                    expected.append([reached, reached + len(word)])
                reached += len(word) + 1
            assert row[f"changed{name}"] == expected
    assert any(len(row["changed"]) > 1 for row in rows)


def test_single_texts_and_no_example_at_all(tmp_path: Path) -> None:
    one, nothing = tmp_path / "one", tmp_path / "nothing"
    for directory in (one, nothing):
        directory.mkdir()
    run(one, split_of("shop"), settings_with(candidates=1), fixed_mlm("lamp"))
    inputs, sources = read_augmented(one)
    assert (inputs, sources.tolist()) == (["lamp"], [0])
    facts = run(nothing, split_of("42"), settings_with(copies=2), fixed_mlm("lamp"))
    assert facts["examples"] == facts["shards"] == facts["words_replaced"] == 0
    assert facts["dropped"]["unchanged"] == 2
    inputs, sources = read_augmented(nothing)
    assert (inputs, sources.shape, sources.dtype) == ([], (0,), np.int32)


def limited(
    directory: Path, train: Split, most: int | None, seed: int = 42
) -> list[tuple[int, int]]:
    directory.mkdir()
    run(directory, train, settings_with(copies=5, max_rows_per_class=most, seed=seed), tiny_mlm())
    return [(row["source_row"], row["copy"]) for row in rows_of(directory)]


def test_the_limit_of_examples_per_class(tmp_path: Path, small_parts: None) -> None:
    train = tiny_split("train", 60, seed=5)
    targets = [0] * 40 + [1] * 17 + [2] * 3
    train = Split("train", train.texts, None, targets)
    everything = limited(tmp_path / "all", train, None)
    found = limited(tmp_path / "limited", train, 30)
    counts = Counter(targets[row] for row, _ in found)
    whole = Counter(targets[row] for row, _ in everything)
    assert counts == {0: 30, 1: 30, 2: whole[2]}
    assert whole[2] <= 15
    # in order, and drawn from all rows
    assert found == [row for row in everything if row in set(found)]
    assert len({row for row, _ in found if targets[row] == 0}) > 15
    index = json.loads((tmp_path / "limited" / "index.json").read_text())
    assert index["facts"]["dropped"]["cap"] == len(everything) - len(found)
    assert index["facts"]["examples"] == len(found) == sum(index["shards"])


def test_duplicates_do_not_count_towards_the_limit(tmp_path: Path, small_parts: None) -> None:
    train = split_of(*ALIKE[:50])
    mlm = fixed_mlm(*WORDS)
    recipe = settings_with(copies=6, candidates=8)
    left = len(plainly_distinct(train, recipe, mlm))
    limited_recipe = recipe.model_copy(update={"max_rows_per_class": left - 2})
    facts = run(tmp_path, train, limited_recipe, mlm)
    assert facts["dropped"]["duplicate"] > left
    assert facts["dropped"]["cap"] == 2
    assert facts["examples"] == left - 2


def test_a_set_of_labels_counts_as_a_class(tmp_path: Path, small_parts: None) -> None:
    train = tiny_multilabel(80).train
    found = limited(tmp_path / "limited", train, 7)
    counts = Counter(train.targets[row] for row, _ in found)
    assert set(counts) == set(train.targets)
    assert set(counts.values()) == {7}


def test_regression_has_no_limit_per_class_in_a_run(tmp_path: Path) -> None:
    train = tiny_regression(20).train
    with pytest.raises(RecipeError, match=r"augment\.max_rows_per_class.*\n.*regression"):
        run(tmp_path, train, settings_with(max_rows_per_class=5), tiny_mlm())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rows", "copies"),
    [(3_668, 30), (10_000, 30), (10_001, 20), (104_743, 20), (200_001, 10), (392_702, 10)],
)
def test_copies_by_the_number_of_rows(rows: int, copies: int) -> None:
    unset = AugmentSettings()
    assert copies_for(rows, unset) == copies
    assert copies_for(rows, AugmentSettings(copies=3)) == 3


def test_the_draws_of_a_copy_do_not_depend_on_other_copies() -> None:
    train = tiny_split("train", 20, seed=5)
    recipe = AugmentSettings(vectors="any", sources=["vectors"], replace_probability=0.5)
    vectors = listed(shop=["store", "mall"], lamp=["light", "bulb"], parcel=["box", "letter"])
    makers = [
        ExampleMaker(
            train,
            recipe.model_copy(update={"copies": copies}),
            proposers_with(vectors=vectors),
        )
        for copies in (2, 6)
    ]
    few, many = (maker.make(range(20))[0] for maker in makers)
    assert few == [example for example in many if example.copy < 2]
    assert 10 < len(few) < len(many)
