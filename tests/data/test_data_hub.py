"""A local folder in the hub's layout is read like a hub data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Load = Callable[..., Any]

CARD = """---
dataset_info:
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': worse
          '1': better
---
"""
FILES = {
    "h/train.csv": "text,label\n001,1\nNA,0\n",
    "h/validation.csv": "text,label\n1e5,1\n",
    "h/test.csv": "text,label\nq,-1\nw,-1\n",
}


def test_csv_texts_stay_texts(load: Load) -> None:
    loaded = load(FILES, hub="h")
    assert loaded.rows() == [("001", "1"), ("NA", "0")]
    assert loaded.rows("dev") == [("1e5", "1")]
    assert loaded.dataset.test is None
    loaded.notice("'h': reading the local folder, not the hub")


def test_declared_class_names_and_given_ones(load: Load) -> None:
    files = {**FILES, "h/README.md": CARD}
    loaded = load(files, hub="./h")
    assert loaded.dataset.labels == ("worse", "better")
    assert loaded.dataset.train.targets == [1, 0]
    reordered = load(files, hub="h", labels=["better", "worse"])
    assert [name for _, name in reordered.rows()] == ["better", "worse"]
    assert reordered.dataset.train.targets == [0, 1]
    renamed = load(files, hub="h", labels=["bad", "good"])
    assert [name for _, name in renamed.rows()] == ["good", "bad"]
    renamed.notice("split train: data.labels renames the classes: 'worse' -> 'bad'")
    load(files, hub="h", labels=["a", "b", "c"]).problem("split train", "2 classes", "names 3")


def test_wrong_split_and_column_names(load: Load) -> None:
    load(FILES, hub="h", dev_split="valid").problem("no split 'valid' (did you mean 'validation'?)")
    loaded = load(FILES, hub="h", text="txt")
    loaded.problem("h, split train: no column 'txt' (did you mean 'text'?)", "'text', 'label'")


def test_nulls_and_other_types_in_parquet(load: Load, tmp_path: Path) -> None:
    folder = tmp_path / "h"
    folder.mkdir()
    columns = {"text": ["a", None, "c"], "number": [1, 2, 3], "label": ["x", "y", None]}
    pq.write_table(pa.table({**columns, "many": [[1], [2], [3]]}), folder / "train.parquet")
    hold = {"hub": "h", "dev_split": None, "dev_fraction": 0.5}
    loaded = load({}, **hold)
    loaded.problem("h, split train, row 2: 1 row without a text (null)")
    loaded.problem("h, split train, row 3: 1 row without a label")
    load({}, **hold, text="number").problem("column 'number' holds int64, not text")
    load({}, **hold, label="many").problem('set data.task = "multilabel"')


# the csv builder's file is closed only when its exception is collected
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_rows_with_surplus_or_missing_fields(load: Load) -> None:
    files = {**FILES, "h/train.csv": "text,label\n001,1,x\nNA,0,x\n"}
    load(files, hub="h").problem("h: ", "Length of header or names does not match")
    files = {**FILES, "h/train.csv": "text,label\n001,1\nb,0\nc\n"}
    load(files, hub="h").problem("h, split train, row 3: 1 row with an empty label")


def test_an_empty_folder(load: Load, tmp_path: Path) -> None:
    (tmp_path / "h").mkdir()
    assert len(load({}, hub="h").problems) == 1


def test_labels_of_minus_one_are_hidden_labels(load: Load, tmp_path: Path) -> None:
    """Also where no class names are declared."""
    (tmp_path / "h").mkdir()
    for name, labels in {"train": [0, 1], "validation": [1, 0], "test": [-1, -1]}.items():
        table = pa.table({"text": [f"{name} {i}" for i in range(2)], "label": labels})
        pq.write_table(table, tmp_path / "h" / f"{name}.parquet")
    loaded = load({}, hub="h", test_split="test")
    loaded.problem("h, split test, rows 1, 2: the split has no labels")
    assert load({}, hub="h").dataset.train.targets == [0, 1]
