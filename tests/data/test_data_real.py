"""Real data sets, if the environment names their folder."""

from __future__ import annotations

import csv
import gzip
import os
from pathlib import Path
from typing import Any

import pytest

from factory.data.dataset import read_dataset, write_dataset
from factory.data.load import load_dataset
from factory.data.unlabelled import load_unlabelled
from factory.recipe.data import DataSettings

REAL_DATA = os.environ.get("FACTORY_REAL_DATA")
PAIRS = ["text", "text_pair"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not REAL_DATA, reason="FACTORY_REAL_DATA names no folder of data sets"),
]


@pytest.mark.parametrize(
    ("folder", "files", "settings", "rows", "classes"),
    [
        ("sst2", ["train.tsv.gz", "dev.tsv"], {}, [67344, 872], 2),
        ("banking77", ["train.tsv", "dev.tsv", "test.tsv"], {}, [8970, 1001, 3080], 77),
        ("snips", ["train.tsv", "dev.tsv", "test.tsv"], {}, [13027, 689, 700], 7),
        ("sms-spam", ["train.tsv", "dev.tsv", "test.tsv"], {}, [3590, 513, 1026], 2),
        (
            "goemotions",
            ["train.tsv.gz", "dev.tsv", "test.tsv"],
            {"label": "labels", "task": "multilabel", "allow_duplicates": True},
            [43410, 5426, 5427],
            28,
        ),
        ("mrpc", ["train.tsv", "dev.tsv"], {"text": PAIRS}, [3668, 408], 2),
        (
            "stsb",
            ["train.tsv", "dev.tsv"],
            {"text": PAIRS, "task": "regression", "allow_duplicates": True},
            [5749, 1500],
            1,
        ),
    ],
)
def test_a_real_set(
    tmp_path: Path,
    folder: str,
    files: list[str],
    settings: dict[str, Any],
    rows: list[int],
    classes: int,
) -> None:
    base = Path(REAL_DATA or "") / folder
    named = dict(zip(("train", "dev", "test"), files, strict=False))
    data = DataSettings(**named, **settings)
    dataset, facts = load_dataset(data, base, tmp_path / "cache", lambda line: None)
    assert list(facts["rows"].values()) == rows  # type: ignore[attr-defined]
    assert len(dataset.labels) == classes
    assert dataset.train.texts == column(base / files[0], "text")
    write_dataset(dataset, tmp_path / "stored")
    assert read_dataset(tmp_path / "stored") == dataset


def test_real_unlabelled_rows(tmp_path: Path) -> None:
    """Every split once more, as unlabelled text: only rows of test may be left."""
    base = Path(REAL_DATA or "") / "sms-spam"
    names = ["train.tsv", "dev.tsv", "test.tsv"]
    data = DataSettings(train="train.tsv", dev="dev.tsv", unlabelled=names)
    dataset, _ = load_dataset(data, base, tmp_path, lambda line: None)
    rows, facts = load_unlabelled(data, base, tmp_path, dataset, lambda line: None)
    sources: Any = facts["sources"]
    assert [source["rows"] for source in sources] == [3590, 513, 1026]
    assert [source["kept"] for source in sources] == [0, 0, len(rows)]
    assert 900 < len(rows) <= 1026


def column(path: Path, name: str) -> list[str]:
    """One column by the csv module, as an independent reader."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="") as handle:
        rows = csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [row[name] for row in rows]
