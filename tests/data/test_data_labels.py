"""Label columns become class indices or numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Load = Callable[..., Any]


def load_labels(load: Load, column: list[str], **settings: Any) -> Any:
    """A csv file with the given labels, one of its rows held out as dev."""
    rows = "".join(f"text {i},{label}\n" for i, label in enumerate(column))
    dev = f"text,label\nother,{column[0]}\n"
    files = {"t.csv": f"text,label\n{rows}", "d.csv": dev}
    return load(files, train="t.csv", dev="d.csv", **settings)


def load_typed(load: Load, column: list[str], **settings: Any) -> Any:
    """The same as JSON, where numbers are numbers."""
    rows = "".join(f'{{"text":"{i}","label":{label}}}\n' for i, label in enumerate(column))
    dev = f'{{"text":"other","label":{column[0]}}}\n'
    return load({"t.jsonl": rows, "d.jsonl": dev}, train="t.jsonl", dev="d.jsonl", **settings)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["pos", "neg", "Neutral"], ("Neutral", "neg", "pos")),
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["01", "1", "2"], ("01", "1", "2")),
        (["NA", "null"], ("NA", "null")),
        (["b ok", "a"], ("a", "b ok")),
    ],
)
def test_names_are_sorted_and_numbers_sorted_as_numbers(
    load: Load, labels: list[str], expected: tuple[str, ...]
) -> None:
    loaded = load_labels(load, labels)
    assert loaded.dataset.labels == expected
    assert [name for _, name in loaded.rows()] == labels


def test_typed_integers_are_named_by_their_number(load: Load) -> None:
    loaded = load_typed(load, ["10", "9", "-1"])
    assert loaded.dataset.labels == ("-1", "9", "10")
    assert loaded.dataset.train.targets == [2, 1, 0]


@pytest.mark.parametrize("reader", [load_labels, load_typed])
def test_an_integer_is_a_position_in_given_labels(load: Load, reader: Any) -> None:
    loaded = reader(load, ["1", "0"], labels=["neg", "pos"])
    assert loaded.dataset.labels == ("neg", "pos")
    assert [name for _, name in loaded.rows()] == ["pos", "neg"]
    outside = reader(load, ["0", "2", "1"], labels=["neg", "pos"])
    outside.problem("is outside 0..1", "'neg', 'pos'")


def test_a_label_not_given_and_a_given_label_without_rows(load: Load) -> None:
    loaded = load_labels(load, ["a", "B"], labels=["a", "b"])
    loaded.problem("t.csv: 1 label not in data.labels: 'B' (line 3) (did you mean 'b'?)")
    loaded.problem("no row has the label 'b' of data.labels")


def test_numerals_as_names_are_unambiguous_only_for_text(load: Load) -> None:
    loaded = load_labels(load, ["1", "2"], labels=["2", "1"])
    assert [name for _, name in loaded.rows()] == ["1", "2"]
    assert loaded.dataset.labels == ("2", "1")
    load_typed(load, ["0", "1"], labels=["1", "2"]).problem("data.labels", "0 means '1'")


def test_decimal_labels_are_refused(load: Load) -> None:
    load_typed(load, ["1.0", "0.0"]).problem("t.jsonl, lines 1, 2", "neither text nor a whole")


def test_regression_targets(load: Load) -> None:
    loaded = load_labels(load, ["-1", "2.5", "1e2", "-.5", "+3"], task="regression")
    assert loaded.dataset.labels == ("value",)
    assert loaded.dataset.train.targets == [-1.0, 2.5, 100.0, -0.5, 3.0]
    assert all(type(value) is float for value in loaded.dataset.train.targets)
    assert loaded.facts["target_range"]["train"] == {"min": -1.0, "mean": 20.8, "max": 100.0}
    assert load_typed(load, ["1", "2.5"], task="regression").dataset.train.targets == [1.0, 2.5]


@pytest.mark.parametrize("bad", ["nan", "inf", "1e999", "", "1_000", "high", " 2", "0x10", "1,5"])
def test_targets_that_are_not_numbers(load: Load, bad: str) -> None:
    loaded = load_labels(load, ["1.0", f'"{bad}"'], task="regression")
    loaded.problem("t.csv, line 3: 1 row whose label is not a finite number", repr(bad))


@pytest.mark.parametrize("bad", ["null", "true", '"2.5"'])
def test_typed_targets_that_are_not_numbers(load: Load, bad: str) -> None:
    loaded = load_typed(load, ["1.0", bad], task="regression")
    loaded.problem("t.jsonl, line 2: 1 row whose label is not a finite number")
