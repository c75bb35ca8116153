"""Label cells with several names: parsed, checked, held out, stored."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.data.dataset import read_dataset, write_dataset
from factory.data.labels import split_cell
from factory.data.load import load_dataset
from factory.recipe.data import DataSettings

Load = Callable[..., Any]

TSV = "text\tlabel\na\tjoy,anger\nb\t\nc\tfear\nd\tjoy , fear\n"
DEV = "text\tlabel\ne\tanger\nf\t\n"
SETTINGS: dict[str, Any] = {"train": "t.tsv", "dev": "d.tsv", "task": "multilabel"}


def load_tsv(load: Load, train: str = TSV, dev: str = DEV, **settings: Any) -> Any:
    return load({"t.tsv": train, "d.tsv": dev}, **{**SETTINGS, **settings})


def load_lists(load: Load, cells: list[Any], **settings: Any) -> Any:
    """The same as JSON, one line per cell; dev repeats the first of them."""
    rows = [json.dumps({"text": f"t{i}", "label": cell}) for i, cell in enumerate(cells)]
    dev = json.dumps({"text": "other", "label": cells[0]})
    files = {"t.jsonl": "\n".join(rows), "d.jsonl": dev}
    return load(files, train="t.jsonl", dev="d.jsonl", task="multilabel", **settings)


def test_a_cell_names_several_labels(load: Load) -> None:
    loaded = load_tsv(load)
    assert loaded.dataset.labels == ("anger", "fear", "joy")
    assert loaded.dataset.train.targets == [(0, 2), (), (1,), (1, 2)]
    assert loaded.dataset.dev.targets == [(0,), ()]
    assert loaded.facts["label_balance"]["train"] == {"anger": 1, "fear": 2, "joy": 2}
    assert loaded.notices == []


def test_another_separator(load: Load) -> None:
    train = "text\tlabel\na\tx,1 ; y\nb\ty\n"
    loaded = load_tsv(load, train, "text\tlabel\nc\ty\n", label_separator=";")
    assert loaded.dataset.labels == ("x,1", "y")
    assert loaded.dataset.train.targets == [(0, 1), (1,)]


def test_csv_quotes_its_commas(load: Load) -> None:
    files = {"t.csv": 'text,label\na,"x,y"\nb,x\n', "d.csv": "text,label\nc,y\n"}
    loaded = load(files, train="t.csv", dev="d.csv", task="multilabel")
    assert loaded.dataset.train.targets == [(0, 1), (0,)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), max_size=5),
       st.sampled_from([",", ";", "|", " / "]))  # fmt: skip
def test_any_names_come_back(names: list[str], separator: str) -> None:
    clean = [name.replace(separator, "").strip() for name in names]
    usable = [name for name in clean if name and separator.strip() not in name]
    assert split_cell(separator.join(usable), separator) == usable
    assert split_cell(f"  {separator.join(usable)} ", separator) == usable


@pytest.mark.parametrize("cell", ["joy,", ",joy", "joy,,fear", ","])
def test_an_empty_name_is_a_problem(load: Load, cell: str) -> None:
    train = f"text\tlabel\na\tjoy\nb\tfear\nc\t{cell}\n"
    dev = "text\tlabel\ne\tjoy\n"
    load_tsv(load, train, dev).problem("t.tsv, line 4: 1 row with an empty label")


def test_a_label_that_stands_twice_is_noted_and_counts_once(load: Load) -> None:
    loaded = load_tsv(load, "text\tlabel\na\tjoy,fear, joy\nb\tfear,joy\n", "text\tlabel\nc\tjoy\n")
    assert loaded.dataset.train.targets == [(0, 1), (0, 1)]
    loaded.notice("t.tsv, line 2: 1 row with the same label twice")


def test_labels_train_lacks(load: Load) -> None:
    loaded = load_tsv(load, dev="text\tlabel\ne\tjoi,anger\nf\tjoi,sorrow\n")
    problem = loaded.problem("d.tsv: 2 labels without a row in train")
    assert "'joi' (lines 2, 3) (did you mean 'joy'?)" in problem
    assert "'sorrow' (line 3)" in problem
    assert problem.endswith("; 2 rows")  # though three labels are meant


def test_labels_not_listed(load: Load) -> None:
    loaded = load_tsv(load, labels=["joy", "fear"])
    loaded.problem("t.tsv: 1 label not in data.labels: 'anger' (line 2)")
    absent = load_tsv(load, labels=["joy", "fear", "anger", "pride"])
    absent.problem("t.tsv: no row has the label 'pride' of data.labels")


def test_labels_listed_give_the_order(load: Load) -> None:
    loaded = load_tsv(load, labels=["joy", "fear", "anger"])
    assert loaded.dataset.train.targets == [(0, 2), (), (1,), (0, 1)]


def test_lookalikes(load: Load) -> None:
    loaded = load_tsv(load, dev="text\tlabel\ne\tanger,Joy\n")
    loaded.problem("differ only by case", "'joy' (2 rows, first at t.tsv, line 2)", "'Joy' (1 row")


def test_a_single_label_is_no_task(load: Load) -> None:
    loaded = load_tsv(load, "text\tlabel\na\tjoy\nb\t\n", "text\tlabel\nc\t\n")
    loaded.problem("at least two classes are needed", "only 'joy'")


def test_leaks_and_unlike_repeats(load: Load) -> None:
    train = "text\tlabel\na\tjoy,fear\na\tfear,joy\na\tjoy\n"
    loaded = load_tsv(load, train, "text\tlabel\na\tjoy\n")
    loaded.problem("d.tsv: 1 row of dev also in train")
    loaded.notice("1 row repeats an earlier input with another label: line 4 = line 2")
    loaded.notice("1 row repeats an earlier input with the same label: line 3 = line 2")


def test_lists_of_names(load: Load) -> None:
    loaded = load_lists(load, [["b", "a"], [], ["c,d"]])
    assert loaded.dataset.labels == ("a", "b", "c,d")  # a separator means nothing in a list
    assert loaded.dataset.train.targets == [(0, 1), (), (2,)]


def test_lists_of_integers(load: Load) -> None:
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
        ([["a"], ["\ud800"]], ("t.jsonl, line 2: invalid JSON",)),
    ],
)
def test_lists_that_cannot_be_used(load: Load, cells: list[Any], parts: tuple[str, ...]) -> None:
    load_lists(load, cells).problem(*parts)


def test_a_list_needs_the_task(tmp_path: Path) -> None:
    save_parquet(tmp_path, {"text": ["a", "b"], "label": [["x"], ["y"]]})
    data = DataSettings(train="t.parquet", dev_fraction=0.5)
    with pytest.raises(Exception, match=r'set data\.task = "multilabel"'):
        load_dataset(data, tmp_path, tmp_path / "cache", lambda line: None)


def save_parquet(folder: Path, columns: dict[str, Any], features: Any = None) -> None:
    datasets.Dataset.from_dict(columns, features=features).to_parquet(folder / "t.parquet")


@pytest.mark.parametrize("declared", [False, True])
def test_parquet_with_names_or_declared_classes(tmp_path: Path, declared: bool) -> None:
    names = ["zeta", "beta", "alpha"]
    cells: list[list[Any]] = [["zeta", "alpha"], [], ["beta"], ["beta"], ["alpha", "zeta"]] * 4
    kind: Any = datasets.Value("string")
    if declared:
        kind = datasets.ClassLabel(names=names)
        cells = [[names.index(name) for name in cell] for cell in cells]
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.List(kind)})
    texts = [f"t{i}" for i in range(len(cells))]
    save_parquet(tmp_path, {"text": texts, "label": cells}, features)
    data = DataSettings(train="t.parquet", dev_fraction=0.2, task="multilabel")
    dataset, _ = load_dataset(data, tmp_path, tmp_path / "cache", lambda line: None)
    assert dataset.labels == (tuple(names) if declared else tuple(sorted(names)))
    by_text = {
        text: {dataset.labels[index] for index in target}
        for split in dataset.splits()
        for text, target in zip(split.texts, split.targets, strict=True)
    }
    assert by_text["t0"] == {"zeta", "alpha"}
    assert by_text["t1"] == set()
    assert by_text["t7"] == {"beta"}
    assert len(by_text) == 20


def test_stored_and_read_again(load: Load, tmp_path: Path) -> None:
    dataset = load_tsv(load).dataset
    write_dataset(dataset, tmp_path / "stored")
    again = read_dataset(tmp_path / "stored")
    assert again == dataset
    assert all(type(target) is tuple for target in again.train.targets)


def held_out(load: Load, seed: int = 42, share: float = 0.25) -> Any:
    """200 rows: a common label, one of a tenth, one of three rows, one of a single row."""
    rows = []
    for row in range(200):
        names = ["common"] if row % 2 == 0 else []
        names += ["tenth"] if row % 10 == 3 else []
        names += ["rare"] if row in (20, 21, 122) else []
        names += ["single"] if row == 77 else []
        rows.append(f"text {row}\t{','.join(names)}\n")
    files = {"t.tsv": "text\tlabel\n" + "".join(rows)}
    settings = {"train": "t.tsv", "dev_fraction": share, "seed": seed, "task": "multilabel"}
    return load(files, **settings)


def test_held_out_rows_keep_the_shares_and_the_rare_labels(load: Load) -> None:
    loaded = held_out(load)
    dataset = loaded.dataset
    assert (len(dataset.train), len(dataset.dev)) == (150, 50)
    balance = {split.name: loaded.facts["label_balance"][split.name] for split in dataset.splits()}
    assert balance["train"]["single"] == 1  # dev may lack it, train may not
    assert balance["train"]["rare"] >= 1
    assert balance["dev"]["tenth"] == 5  # a quarter of 20
    assert abs(balance["dev"]["common"] - 25) <= 1
    loaded.notice("dev has no row of", "'single'")
    together = [*dataset.train.texts, *dataset.dev.texts]
    assert sorted(together) == sorted(f"text {row}" for row in range(200))


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_however_much_is_held_out_every_label_stays_in_train(load: Load, share: float) -> None:
    train = held_out(load, share=share).dataset.train
    rows = Counter(label for target in train.targets for label in target)
    assert set(rows) == {0, 1, 2, 3}


def test_another_seed_draws_other_rows(load: Load) -> None:
    first, again = held_out(load).dataset.dev.texts, held_out(load).dataset.dev.texts
    assert first == again
    assert held_out(load, seed=1).dataset.dev.texts != first


def test_150_labels(load: Load) -> None:
    """Each label on four rows, two labels per row."""
    random = np.random.default_rng(5)
    names = [f"label {i:03}" for i in range(150)]
    order = np.concatenate([random.permutation(150) for _ in range(4)]).reshape(-1, 2)
    rows = [f"t{i}\t{names[a]}|{names[b]}\n" for i, (a, b) in enumerate(order)]
    files = {"t.tsv": "text\tlabel\n" + "".join(rows)}
    settings = {"train": "t.tsv", "dev_fraction": 0.2, "task": "multilabel"}
    loaded = load(files, label_separator="|", **settings)
    assert len(loaded.dataset.labels) == 150
    balance = loaded.facts["label_balance"]
    assert min(balance["train"].values()) >= 1
    for name in names:
        # two names drawn for one row may be the same label, which counts once
        assert 3 <= balance["train"][name] + balance["dev"][name] <= 4
