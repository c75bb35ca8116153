"""Rows held out as dev: how many, which, and duplicates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from factory.data.dataset import Split
from factory.data.holdout import hold_out
from factory.data.messages import Findings
from factory.recipe.data import DataSettings


def held_out(
    texts: list[str], targets: list[int], fraction: float, seed: int = 42
) -> tuple[Split, Split, Findings]:
    findings = Findings()
    data = DataSettings(train="t.csv", dev_fraction=fraction, seed=seed)
    labels = [str(i) for i in range(max(targets) + 1)]
    train, dev = hold_out(Split("train", texts, None, targets), labels, data, findings)
    return train, dev, findings


def test_each_class_gives_its_share() -> None:
    texts = [f"text {i}" for i in range(100)]
    train, dev, findings = held_out(texts, [0] * 70 + [1] * 30, 0.1)
    assert Counter(dev.targets) == {0: 7, 1: 3}
    assert Counter(train.targets) == {0: 63, 1: 27}
    assert findings.notices == [
        "data.dev_fraction 0.1: 10 of 100 rows of train held out as dev (seed 42)"
    ]


def test_small_classes_share_the_rounding() -> None:
    texts = [f"text {i}" for i in range(50)]
    _, dev, findings = held_out(texts, [i % 10 for i in range(50)], 0.1)
    assert len(dev) == 5
    assert set(Counter(dev.targets).values()) == {1}
    assert "dev has no row of" in findings.notices[1]


def test_the_seed_and_only_the_seed_and_texts_decide() -> None:
    texts = [f"text {i}" for i in range(40)]
    targets = [i % 2 for i in range(40)]
    _, dev, _ = held_out(texts, targets, 0.25)
    assert held_out(texts, targets, 0.25)[1] == dev
    assert set(held_out(texts[::-1], targets[::-1], 0.25)[1].texts) == set(dev.texts)
    assert held_out(texts, targets, 0.25, seed=7)[1] != dev


def test_a_fraction_too_small_is_a_problem() -> None:
    _, _, findings = held_out(["a", "b", "c", "d"], [0, 0, 1, 1], 0.01)
    assert findings.problems == [
        "data.dev_fraction 0.01: holds out none of 4 rows; raise it or add rows"
    ]


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), min_size=1, max_size=60),
    st.floats(0.01, 0.99),
)
def test_nothing_is_lost_and_duplicates_stay_together(
    rows: list[tuple[int, int]], fraction: float
) -> None:
    texts = [str(text) for text, _ in rows]
    targets = [target for _, target in rows]
    train, dev, _ = held_out(texts, targets, fraction)
    kept = zip(train.texts, train.targets, strict=True)
    both = [*kept, *zip(dev.texts, dev.targets, strict=True)]
    assert Counter(both) == Counter(zip(texts, targets, strict=True))
    assert not set(train.texts) & set(dev.texts)
    assert set(train.targets) == set(targets)
    assert len(dev) <= fraction * len(rows) + 1


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_through_a_file(load: Callable[..., Any], task: str) -> None:
    rows = "".join(f"text {i},{i % 2}\n" for i in range(20))
    test = "text,label\nother,1\n"
    loaded = load(
        {"t.csv": f"text,label\n{rows}", "e.csv": test},
        train="t.csv",
        test="e.csv",
        dev_fraction=0.2,
        task=task,
    )
    assert loaded.facts["rows"] == {"train": 16, "dev": 4, "test": 1}
    assert (loaded.dataset.train.name, loaded.dataset.dev.name) == ("train", "dev")
    assert sorted(loaded.rows() + loaded.rows("dev")) == sorted(
        (f"text {i}", str(i % 2) if task == "classification" else i % 2) for i in range(20)
    )
