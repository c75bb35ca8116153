"""Every format is read back exactly as it was written."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.data import load_dataset, reading
from factory.errors import DataError
from factory.recipe.data import DataSettings

Rows = list[tuple[str, str]]
CHARACTERS = st.characters(exclude_categories=["Cs"])
TEXT = st.text(CHARACTERS, min_size=1).filter(str.strip)
AWKWARD = st.text(st.sampled_from(list('a",\t\r\n\0\u2028 ')), min_size=1).filter(str.strip)
LOOKALIKES = st.sampled_from(["NA", "null", "None", "nan", "1", "001", "1e5", "-0", "2020-01-01"])
TEXTS = st.lists(TEXT | AWKWARD | LOOKALIKES, min_size=2, max_size=8, unique=True)

TRICKY: Rows = [
    ("NA", "x"),
    ("null", "y"),
    ("None", "x"),
    ("001", "y"),
    ("1", "x"),
    ("1e5", "y"),
    (" kept blanks ", "x"),
    ("🙂 ünï\u2028code\x85", "y"),
]


def write_csv(rows: Rows) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("text", "label"), *rows])
    return text.getvalue().encode()


def write_tsv(rows: Rows) -> bytes:
    return "".join(f"{text}\t{label}\n" for text, label in [("text", "label"), *rows]).encode()


def write_jsonl(rows: Rows) -> bytes:
    return "".join(json.dumps({"text": t, "label": v}) + "\n" for t, v in rows).encode()


def write_parquet(rows: Rows) -> bytes:
    buffer = io.BytesIO()
    columns = {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


WRITERS = {"csv": write_csv, "tsv": write_tsv, "jsonl": write_jsonl, "parquet": write_parquet}


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("name", WRITERS)
def test_a_format_and_its_gzip(load: Callable[..., Any], name: str, gzipped: bool) -> None:
    content = WRITERS[name](TRICKY)
    ending = f"{name}.gz" if gzipped else name
    train = gzip.compress(content) if gzipped else content
    loaded = load(
        {f"train.{ending}": train, "dev.csv": "text,label\nother,x\n"},
        train=f"train.{ending}",
        dev="dev.csv",
    )
    assert loaded.rows() == TRICKY
    assert loaded.rows("dev") == [("other", "x")]


def load_rows(content: bytes, ending: str, **more: Any) -> Rows:
    with tempfile.TemporaryDirectory() as directory:
        base = Path(directory)
        (base / f"train.{ending}").write_bytes(content)
        (base / "dev.csv").write_text("text,label\nonly in dev: 5b1f,x\n")
        data = DataSettings(train=f"train.{ending}", dev="dev.csv", **more)
        dataset, _ = load_dataset(data, base, base / "cache", lambda line: None)
        names = [dataset.labels[target] for target in dataset.train.targets]
        return list(zip(dataset.train.texts, names, strict=True))


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@settings(max_examples=25, deadline=None)
@given(TEXTS)
def test_any_text_comes_back(ending: str, texts: list[str]) -> None:
    rows = [(text, "xy"[i % 2]) for i, text in enumerate(texts)]
    assert load_rows(WRITERS[ending](rows), ending) == rows


@settings(max_examples=25, deadline=None)
@given(TEXTS)
def test_any_text_a_tsv_can_carry_comes_back(texts: list[str]) -> None:
    carried = list(dict.fromkeys(t.translate(str.maketrans("\t\r\n", "___")) for t in texts))
    rows = [(text, "xy"[i % 2]) for i, text in enumerate([*carried, "5b1f"])]
    assert load_rows(write_tsv(rows), "tsv") == rows


@settings(max_examples=15, deadline=None)
@given(TEXTS)
def test_any_text_of_a_quoted_tsv_comes_back(texts: list[str]) -> None:
    rows = [(text, "xy"[i % 2]) for i, text in enumerate(texts)]
    written = io.StringIO(newline="")
    csv.writer(written, dialect="excel-tab").writerows([("text", "label"), *rows])
    assert load_rows(written.getvalue().encode(), "tsv", quoting="standard") == rows


def test_texts_that_all_look_like_dates_stay_texts() -> None:
    rows = [("2020-01-01", "x"), ("2021-02-03T04:05:06Z", "y")]
    assert load_rows(write_jsonl(rows), "jsonl") == rows


def test_a_byte_order_mark_is_no_part_of_the_first_column() -> None:
    for ending in ("csv", "jsonl"):
        content = b"\xef\xbb\xbf" + WRITERS[ending](TRICKY)
        assert load_rows(content, ending) == TRICKY


def test_unused_columns_may_hold_anything() -> None:
    table = "id,text,,label\n1,a,,x\nNA,b,,y\n"
    assert load_rows(table.encode(), "csv") == [("a", "x"), ("b", "y")]
    lines = '{"text":"a","label":"x","m":1}\n{"text":"b","label":"y","m":{"k":[2]}}\n'
    assert load_rows(lines.encode(), "jsonl") == [("a", "x"), ("b", "y")]


def test_pairs(load: Callable[..., Any]) -> None:
    loaded = load(
        {"t.csv": "q,a,label\none,two,x\none,three,y\n", "d.csv": "a,q,label\none,two,y\n"},
        train="t.csv",
        dev="d.csv",
        text=["q", "a"],
    )
    assert loaded.rows() == [(("one", "two"), "x"), (("one", "three"), "y")]
    assert loaded.rows("dev") == [(("two", "one"), "y")]


def test_a_second_write_is_not_answered_from_the_cache(tmp_path: Path) -> None:
    """Same path, same size, same time; the brackets are no glob pattern either."""
    train = tmp_path / "[t].csv"
    data = DataSettings(train=train.name, dev_fraction=0.5)
    for first, second in (("a", "b"), ("c", "d")):
        train.write_text(f"text,label\n{first},x\n{first}2,x\n{second},y\n{second}2,y\n")
        os.utime(train, (1_000_000_000, 1_000_000_000))
        dataset, _ = load_dataset(data, tmp_path, tmp_path / "cache", lambda line: None)
        found = sorted(dataset.train.texts + dataset.dev.texts)
        assert found == [first, f"{first}2", second, f"{second}2"]


def test_two_readers_that_disagree_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.csv").write_text("text,label\na,x\nb,y\n")
    data = DataSettings(train="t.csv", dev_fraction=0.5)
    for columns, words in (
        ([["a", "c"], ["x", "y"]], "t.csv, line 3: column 'text' holds 'b', datasets reads 'c'"),
        ([["a"], ["x"]], "the file holds 2 records, datasets reads 1"),
    ):
        monkeypatch.setattr(reading.loading, "columns_of", lambda *_, found=columns: found)
        with pytest.raises(DataError, match=words):
            load_dataset(data, tmp_path, tmp_path / "cache", lambda line: None)


def test_nothing_is_cached_elsewhere_or_said(tmp_path: Path) -> None:
    """In a process of its own, since the library fixes its folders when it is imported."""
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "t.csv.gz").write_bytes(gzip.compress(write_csv(TRICKY)))
    code = (
        "from pathlib import Path\n"
        "from factory.data import load_dataset\n"
        "from factory.recipe.recipe import DataSettings\n"
        "settings = DataSettings(train='t.csv.gz', dev_fraction=0.25)\n"
        "load_dataset(settings, Path(), Path('cache'), lambda line: None)\n"
    )
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "XDG_"))}
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "work",
        env={**inherited, "HOME": str(tmp_path / "home"), "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list((tmp_path / "home").iterdir()) == []
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"cache", "t.csv.gz"}
