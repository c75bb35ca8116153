"""Every kind of broken file is reported with file and line."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

import pytest

TRAIN = "text,label\na,x\nb,y\nc,x\n"
Load = Callable[..., Any]


def load_dev(load: Load, content: str | bytes, name: str = "dev.csv", **settings: Any) -> Any:
    """Load a good train file with the given dev file."""
    return load({"train.csv": TRAIN, name: content}, train="train.csv", dev=name, **settings)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("text,label\né ü,x\nw".encode() + b"\xff,x\n", ["dev.csv, line 3: byte 0xff", "UTF-8"]),
        (b"text,label\nw\x81,x\n", ["dev.csv, line 2: byte 0x81 is not part"]),
        ("text,label\nq,x\n".encode("utf-16")[:-1], ["dev.csv: cannot be decoded as UTF-16"]),
        ('text,label,"x"y\nq,x,1\n', ["dev.csv, line 1: text after a closing"]),
        (b"PK\x03\x04 and so on", ["dev.csv: is a zip archive or an Excel workbook"]),
        (b"\x00\xff\x01\xfe", ["dev.csv: is not text"]),
        ("", ["dev.csv: is empty"]),
        ("\n\n", ["dev.csv: is empty"]),
        ("text,label\n", ["dev.csv: has a header but no rows"]),
        ("txt,label\nq,x\n", ["no column 'text' (did you mean 'txt'?)", "set data.text"]),
        ("text,label,label\nq,x,x\n", ["dev.csv: two columns are called 'label'; rename one"]),
        ("text,label\nq,x,3\nw,x\ne,x,4\n", ["dev.csv, lines 2, 4: 3 fields, the header has 2"]),
        ("text,label\nq,x\nw\n", ["dev.csv, line 3: 1 field, the header has 2"]),
        ("text,label\n ,x\n,y\nq,x\n", ["dev.csv, lines 2, 3: 2 rows with an empty text"]),
        ("text,label\nq,\nw,x\n", ["dev.csv, line 2: 1 row with an empty label"]),
        ('text,label\n"q\nw",x\ne,\n', ["dev.csv, line 4: 1 row with an empty label"]),
        ("text,label\nq,x\nw,z\n", ["dev.csv: 1 label without a row in train", "'z' (line 3)"]),
        (
            "text,label\nq,x\nw, x\n",
            ["differ only by case or surrounding blanks", "dev.csv, line 3"],
        ),
        (
            "text,label\nq,X\nw,x\n",
            ["differ only by case or surrounding blanks", "dev.csv, line 2"],
        ),
        (
            'text,label\nq,x\n"w,x\ne,y\n',
            ["dev.csv, line 3: a quotation mark that is never"],
        ),
        (
            'text,label\n"q" w,x\n',
            ["dev.csv, line 2: text after a", 'data.quoting = "none"'],
        ),
        ("text,label\nq,x\nb,y\n", ["1 row of dev also in train", "line 3 = train.csv, line 3"]),
    ],
)
def test_a_csv_problem_has_its_line(load: Load, content: str | bytes, parts: list[str]) -> None:
    load_dev(load, content).problem(*parts)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ["dev.jsonl: is empty"]),
        (
            '{"text":"q","label":"x"}\n{"text":\n',
            ["line 2: invalid JSON (Input data was"],
        ),
        ('{"text":"q","label":NaN}\n', ["line 1: invalid JSON (JSON is malformed"]),
        ('{"text":"q","label":"x"}\n["w"]\n', ["line 2: a list instead of a JSON"]),
        (
            '{"text":"q","label":"x"}\n{"text":"w"}\n',
            ["line 2: no key 'label'; every row needs it"],
        ),
        ('{"txt":"q","label":"x"}\n', ["no column 'text' (did you mean 'txt'?)"]),
        ('{"text":7,"label":"x"}\n', ["line 1: a number in column 'text', not text"]),
        ('{"text":null,"label":"x"}\n', ["line 1: 1 row without a text (null)"]),
        ('{"text":"q","label":null}\n', ["line 1: 1 row without a label"]),
        ('{"text":"q","label":true}\n', ["line 1: 1 row whose label is neither"]),
        ('{"text":"q","label":["x"]}\n', ["line 1: 1 row whose label is neither"]),
        ('{"text":"q","label":1}\n{"text":"w","label":"x"}\n', ["lines 2, 1: text and numbers"]),
        ('{"text":"q\\ud800","label":"x"}\n', ["line 1: invalid JSON"]),
    ],
)
def test_a_jsonl_problem_has_its_line(load: Load, content: str, parts: list[str]) -> None:
    load_dev(load, content, "dev.jsonl").problem("dev.jsonl", *parts)


def test_all_problems_come_together_and_long_lists_are_counted(load: Load) -> None:
    many = "".join(" ,x\n" for _ in range(12))
    loaded = load(
        {"train.csv": "text,label\na,x\n,y\n", "dev.csv": f"text,label\n{many}b,z\n"},
        train="train.csv",
        dev="dev.csv",
    )
    loaded.problem("train.csv, line 3: 1 row with an empty text")
    loaded.problem("dev.csv, lines 2, 3, 4, 5, 6 and 7 more: 12 rows with an empty text")
    loaded.problem("'z' (line 14)")
    loaded = load({"t.csv": "text,label\na,x\nb,x\n"}, train="t.csv", dev_fraction=0.5)
    loaded.problem("t.csv: at least two classes are needed", "only 'x'")


def test_a_broken_gzip_and_a_broken_parquet(load: Load) -> None:
    cut = gzip.compress(TRAIN.encode())[:-9]
    load_dev(load, cut, "dev.csv.gz").problem("dev.csv.gz: cannot be decompressed")
    load_dev(load, b"PAR1PAR1PAR1", "dev.parquet").problem("dev.parquet: cannot be read as Parquet")


def test_blank_lines_marks_inside_a_field_and_a_wrong_ending_are_accepted(load: Load) -> None:
    loaded = load_dev(load, 'text,label\n\n5" pipe,x\n\nq,y\n\n', "dev.csv.gz")
    assert loaded.rows("dev") == [('5" pipe', "x"), ("q", "y")]
    assert loaded.notices == []


def test_a_quoted_tsv_read_without_quoting(load: Load) -> None:
    trap = 'text\tlabel\n"He said ""hi"""\tx\nplain\ty\n"a ""b"" c"\tx\n'
    files = {"t.tsv": trap, "d.tsv": "text\tlabel\nq\tx\n"}
    wrong = load(files, train="t.tsv", dev="d.tsv")
    wrong.notice("t.tsv, lines 2, 4: quotation marks around a text", 'quoting = "standard"')
    assert wrong.rows()[0] == ('"He said ""hi"""', "x")
    right = load(files, train="t.tsv", dev="d.tsv", quoting="standard")
    assert right.rows() == [('He said "hi"', "x"), ("plain", "y"), ('a "b" c', "x")]
    assert right.notices == []
    loaded = load({**files, "t.tsv": 'text\tlabel\n"a\tb"\tx\nc\ty\n'}, train="t.tsv", dev="d.tsv")
    loaded.problem("t.tsv, line 2: 3 fields", 'set data.quoting = "standard"')
    loaded = load(
        {**files, "t.tsv": 'text\tlabel\n5" pipe\tx\n"b\ty\n'}, train="t.tsv", dev="d.tsv"
    )
    assert loaded.rows() == [('5" pipe', "x"), ('"b', "y")]


def test_duplicates_across_splits_may_be_allowed(load: Load) -> None:
    loaded = load_dev(load, "text,label\na,x\nq,y\n", allow_duplicates=True)
    loaded.notice("dev.csv: 1 row of dev also in train: line 2 = train.csv, line 2")
    assert loaded.facts["duplicates_across"] == {"train/dev": 1}


def test_pairs_are_duplicates_only_when_both_texts_are(load: Load) -> None:
    files = {"t.csv": "q,a,label\n1,2,x\n1,3,y\n", "d.csv": "q,a,label\n1,4,x\n1,3,y\n"}
    loaded = load(files, train="t.csv", dev="d.csv", text=["q", "a"])
    loaded.problem("1 row of dev also in train: line 3 = t.csv, line 3")


def test_repeats_within_a_split_are_notices_unlike_labels_first(load: Load) -> None:
    files = {"t.csv": "text,label\na,x\na,x\nb,y\nb,x\n", "d.csv": "text,label\nq,x\n"}
    loaded = load(files, train="t.csv", dev="d.csv")
    assert "t.csv: 1 row repeats an earlier input with another label" in loaded.notices[0]
    assert "line 5 = line 4; for example 'b' is 'y' and then 'x'" in loaded.notices[0]
    assert loaded.notices[1].endswith("with the same label: line 3 = line 2")
    assert loaded.facts["duplicates_within"] == {"train": 2, "dev": 0}
    assert loaded.facts["notices"] == loaded.notices


def test_the_facts(load: Load) -> None:
    loaded = load_dev(load, "text,label\nqqqq,y\n")
    assert loaded.facts == {
        "task": "classification",
        "labels": ["x", "y"],
        "rows": {"train": 3, "dev": 1},
        "duplicates_within": {"train": 0, "dev": 0},
        "duplicates_across": {"train/dev": 0},
        "label_balance": {"train": {"x": 2, "y": 1}, "dev": {"x": 0, "y": 1}},
        "notices": [],
    }
