"""Label cells with several labels: parsed, checked, held out, stored."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from factory.data.dataset import read_dataset, write_dataset
from factory.data.labels import split_cell

Load = Callable[..., Any]

TSV = "text\tlabel\na\tjoy,anger\nb\t\nc\tfear\nd\tjoy , fear\n"
DEV = "text\tlabel\ne\tanger\nf\t\n"


def load_tsv(load: Load, train: str = TSV, dev: str = DEV, **settings: Any) -> Any:
    files = {"t.tsv": train, "d.tsv": dev}
    return load(files, train="t.tsv", dev="d.tsv", task="multilabel", **settings)


def load_lists(load: Load, cells: list[Any], **settings: Any) -> Any:
    """The same as JSON, one line per cell; dev repeats the first of them."""
    rows = [json.dumps({"text": f"t{i}", "label": cell}) for i, cell in enumerate(cells)]
    dev = json.dumps({"text": "other", "label": cells[0]})
    files = {"t.jsonl": "\n".join(rows), "d.jsonl": dev}
    return load(files, train="t.jsonl", dev="d.jsonl", task="multilabel", **settings)


def test_a_cell_names_several_labels(load: Load, tmp_path: Path) -> None:
    loaded = load_tsv(load)
    dataset = loaded.dataset
    assert dataset.labels == ("anger", "fear", "joy")
    assert dataset.train.targets == [(0, 2), (), (1,), (1, 2)]
    assert dataset.dev.targets == [(0,), ()]
    assert loaded.facts["label_balance"]["train"] == {"anger": 1, "fear": 2, "joy": 2}
    assert loaded.notices == []
    write_dataset(dataset, tmp_path / "stored")
    assert read_dataset(tmp_path / "stored") == dataset


def test_another_separator_and_quoted_commas(load: Load) -> None:
    train = "text\tlabel\na\tx,1 ; y\nb\ty\n"
    loaded = load_tsv(load, train, "text\tlabel\nc\ty\n", label_separator=";")
    assert loaded.dataset.labels == ("x,1", "y")
    assert loaded.dataset.train.targets == [(0, 1), (1,)]
    files = {"t.csv": 'text,label\na,"x,y"\nb,x\n', "d.csv": "text,label\nc,y\n"}
    loaded = load(files, train="t.csv", dev="d.csv", task="multilabel")
    assert loaded.dataset.train.targets == [(0, 1), (0,)]
    assert split_cell("  a b / c ", " / ") == ["a b", "c"]


@pytest.mark.parametrize("cell", ["joy,", ",joy", "joy,,fear", ","])
def test_an_empty_name_is_a_problem(load: Load, cell: str) -> None:
    train = f"text\tlabel\na\tjoy\nb\tfear\nc\t{cell}\n"
    dev = "text\tlabel\ne\tjoy\n"
    load_tsv(load, train, dev).problem("t.tsv, line 4: 1 row with an empty label")


def test_a_repeated_label_is_noted_and_counts_once(load: Load) -> None:
    loaded = load_tsv(load, "text\tlabel\na\tjoy,fear, joy\nb\tfear,joy\n", "text\tlabel\nc\tjoy\n")
    assert loaded.dataset.train.targets == [(0, 1), (0, 1)]
    loaded.notice("t.tsv, line 2: 1 row with the same label twice")


def test_unknown_labels(load: Load) -> None:
    loaded = load_tsv(load, dev="text\tlabel\ne\tjoi,anger\nf\tjoi,sorrow\n")
    problem = loaded.problem("d.tsv: 2 labels without a row in train")
    assert "'joi' (lines 2, 3) (did you mean 'joy'?)" in problem
    assert "'sorrow' (line 3)" in problem
    assert problem.endswith("; 2 rows")  # with three labels
    loaded = load_tsv(load, labels=["joy", "fear"])
    loaded.problem("t.tsv: 1 label not in data.labels: 'anger' (line 2)")
    absent = load_tsv(load, labels=["joy", "fear", "anger", "pride"])
    absent.problem("t.tsv: no row has the label 'pride' of data.labels")
    loaded = load_tsv(load, dev="text\tlabel\ne\tanger,Joy\n")
    loaded.problem("differ only by case", "'joy' (2 rows, first at t.tsv, line 2)", "'Joy' (1 row")


def test_given_labels_set_the_order(load: Load) -> None:
    loaded = load_tsv(load, labels=["joy", "fear", "anger"])
    assert loaded.dataset.train.targets == [(0, 2), (), (1,), (0, 1)]


def test_leaks_and_unlike_repeats(load: Load) -> None:
    train = "text\tlabel\na\tjoy,fear\na\tfear,joy\na\tjoy\n"
    loaded = load_tsv(load, train, "text\tlabel\na\tjoy\n")
    loaded.problem("d.tsv: 1 row of dev also in train")
    loaded.notice("1 row repeats an earlier input with another label: line 4 = line 2")
    loaded.notice("1 row repeats an earlier input with the same label: line 3 = line 2")


def test_lists_of_names_and_of_integers(load: Load) -> None:
    loaded = load_lists(load, [["b", "a"], [], ["c,d"]])
    assert loaded.dataset.labels == ("a", "b", "c,d")  # lists are not split at the separator
    assert loaded.dataset.train.targets == [(0, 1), (), (2,)]
    named = load_lists(load, [[2, 0], [1], []], labels=["x", "y", "z"])
    assert named.dataset.train.targets == [(0, 2), (1,), ()]
    assert load_lists(load, [[10, 9], [9]]).dataset.labels == ("9", "10")
    outside = load_lists(load, [[0, 3], [1], [3, 4]], labels=["x", "y", "z"])
    outside.problem("t.jsonl, lines 1, 3: 2 rows whose label (3, 4) is outside 0..2")


@pytest.mark.parametrize(
    ("cells", "parts"),
    [
        ([["a"], None, ["b"]], ("t.jsonl, line 2: 1 row without labels (null)",)),
        ([["a"], "b,c", ["b"]], ("line 2: 1 row whose labels are not a list ('b,c')",)),
        ([["a"], ["b", None]], ("line 2: 1 row without a label",)),
        ([["a"], ["b", True]], ("line 2", "neither text nor a whole number (True)")),
        ([["a"], ["b", ["c"]]], ("line 2", "neither text nor a whole number")),
        ([["a"], [1, 2]], ("text and numbers mixed",)),
        ([[1, 0, 0], [0, 1, 1]], ("t.jsonl: the labels look like one 0 or 1 per label",)),
        ([["a"], []], ("at least two classes are needed", "only 'a'")),
    ],
)
def test_unusable_lists(load: Load, cells: list[Any], parts: tuple[str, ...]) -> None:
    load_lists(load, cells).problem(*parts)


@pytest.mark.parametrize("declared", [False, True])
def test_parquet_with_names_or_declared_classes(load: Load, tmp_path: Path, declared: bool) -> None:
    names = ["zeta", "beta", "alpha"]
    cells: list[list[Any]] = [["zeta", "alpha"], [], ["beta"], ["alpha", "zeta"]] * 4
    kind: Any = datasets.Value("string")
    if declared:
        kind = datasets.ClassLabel(names=names)
        cells = [[names.index(name) for name in cell] for cell in cells]
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.List(kind)})
    columns = {"text": [f"t{i}" for i in range(len(cells))], "label": cells}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "t.parquet")
    settings: dict[str, Any] = {"train": "t.parquet", "dev_fraction": 0.25}
    dataset = load({}, **settings, task="multilabel").dataset
    assert dataset.labels == (tuple(names) if declared else tuple(sorted(names)))
    by_text = {
        text: {dataset.labels[index] for index in target}
        for split in dataset.splits()
        for text, target in zip(split.texts, split.targets, strict=True)
    }
    assert [by_text[f"t{i}"] for i in range(3)] == [{"zeta", "alpha"}, set(), {"beta"}]
    assert len(by_text) == 16
    load({}, **settings).problem('set data.task = "multilabel"')


@pytest.mark.parametrize("share", [0.25, 0.9, 0.99])
def test_held_out_rows_keep_the_shares_and_the_rare_labels(load: Load, share: float) -> None:
    """200 rows: a common label, one of a tenth, one of three rows, one of a single row."""
    rows = []
    for row in range(200):
        names = ["common"] if row % 2 == 0 else []
        names += ["tenth"] if row % 10 == 3 else []
        names += ["rare"] if row in (20, 21, 122) else []
        names += ["single"] if row == 77 else []
        rows.append(f"text {row}\t{','.join(names)}\n")
    files = {"t.tsv": "text\tlabel\n" + "".join(rows)}
    settings: dict[str, Any] = {"train": "t.tsv", "dev_fraction": share, "task": "multilabel"}
    loaded = load(files, **settings)
    train, dev = loaded.dataset.train, loaded.dataset.dev
    rows_of = Counter(label for target in train.targets for label in target)
    assert set(rows_of) == {0, 1, 2, 3}  # dev may lack a label, train may not
    assert sorted([*train.texts, *dev.texts]) == sorted(f"text {row}" for row in range(200))
    if share == 0.25:
        assert (len(train), len(dev)) == (150, 50)
        balance = loaded.facts["label_balance"]["dev"]
        assert balance["tenth"] == 5  # a quarter of 20
        assert abs(balance["common"] - 25) <= 1
        loaded.notice("dev has no row of", "'single'")
        assert load(files, **settings).dataset.dev.texts == dev.texts
        assert load(files, **settings, seed=1).dataset.dev.texts != dev.texts
