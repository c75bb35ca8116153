"""Every format is read exactly as it was written, by every command."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.data.formats import find_format
from factory.data.load import load_dataset, load_split
from factory.data.reading import BadRow, Row, read_rows
from factory.predict.rows import TextRow, Wanted, open_input, text_rows
from factory.recipe.data import DataSettings
from factory.scaffold.columns import read_sheet

Rows = list[tuple[str, str]]
CHARACTERS = st.characters(exclude_categories=["Cs"])
TEXT = st.text(CHARACTERS, min_size=1).filter(str.strip)
AWKWARD = st.text(st.sampled_from(list('a",\t\r\n\0\u2028 ')), min_size=1).filter(str.strip)
LOOKALIKES = st.sampled_from(["NA", "null", "None", "nan", "1", "001", "1e5", "-0", "2020-01-01"])
TEXTS = st.lists(TEXT | AWKWARD | LOOKALIKES, min_size=2, max_size=8, unique=True)


def load_rows(content: bytes, ending: str, **more: Any) -> Rows:
    with tempfile.TemporaryDirectory() as directory:
        base = Path(directory)
        (base / f"train.{ending}").write_bytes(content)
        (base / "dev.csv").write_text("text,label\nonly in dev: 5b1f,x\n")
        data = DataSettings(train=f"train.{ending}", dev="dev.csv", **more)
        dataset, _ = load_dataset(data, base, base / "cache", lambda line: None)
        names = [dataset.labels[target] for target in dataset.train.targets]
        return list(zip(dataset.train.texts, names, strict=True))


@settings(max_examples=25, deadline=None)
@given(TEXTS, st.sampled_from([",", "\t"]))
def test_any_text_of_a_quoted_file_comes_back(texts: list[str], mark: str) -> None:
    rows = [(text, "xy"[i % 2]) for i, text in enumerate(texts)]
    written = io.StringIO(newline="")
    csv.writer(written, delimiter=mark).writerows([("text", "label"), *rows])
    assert load_rows(written.getvalue().encode(), "csv", quoting="standard") == rows


@settings(max_examples=15, deadline=None)
@given(TEXTS)
def test_any_text_of_json_lines_comes_back(texts: list[str]) -> None:
    rows = [(text, "xy"[i % 2]) for i, text in enumerate(texts)]
    lines = "".join(json.dumps({"text": t, "label": v}) + "\n" for t, v in rows)
    assert load_rows(lines.encode(), "jsonl") == rows


@settings(max_examples=15, deadline=None)
@given(TEXTS)
def test_any_text_without_tabs_of_a_tsv_comes_back(texts: list[str]) -> None:
    carried = list(dict.fromkeys(t.translate(str.maketrans("\t\r\n", "___")) for t in texts))
    rows = [(text, "xy"[i % 2]) for i, text in enumerate([*carried, "5b1f"])]
    lines = "".join(f"{text}\t{label}\n" for text, label in [("text", "label"), *rows])
    assert load_rows(lines.encode(), "tsv") == rows


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


# one reader for every command

TABLE = [
    ("text", "id", "label"),
    ("grün; weiß, blau", "1", "x"),
    ('er sagte "nein"', "2", "y"),
    ("zwei\nZeilen\r\nund eine", "3", "x"),
    ("café  ", "4", "y"),
]
ROWS = [(row[0], row[2]) for row in TABLE[1:]]


def delimited(mark: str, end: str = "\n", quoting: Any = csv.QUOTE_MINIMAL) -> str:
    """The table as the standard library writes it."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=mark, lineterminator=end, quoting=quoting).writerows(TABLE)
    return text.getvalue()


def objects(ascii_only: bool = False) -> list[str]:
    rows = [dict(zip(TABLE[0], row, strict=True)) for row in TABLE[1:]]
    return [json.dumps(row, ensure_ascii=ascii_only) for row in rows]


def parquet() -> bytes:
    columns = {name: [row[i] for row in TABLE[1:]] for i, name in enumerate(TABLE[0])}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


MAKES: dict[str, tuple[str, bytes]] = {
    "comma": ("t.csv", delimited(",").encode()),
    "crlf": ("t.csv", delimited(",", "\r\n").encode()),
    "all quoted": ("t.csv", delimited(",", quoting=csv.QUOTE_ALL).encode()),
    "bom": ("t.csv", delimited(",").encode("utf-8-sig")),
    "cp1252": ("t.csv", delimited(",").encode("cp1252")),
    "utf-16": ("t.csv", delimited(",").encode("utf-16")),
    "semicolons": ("t.csv", delimited(";", "\r\n").encode()),
    "semicolons, cp1252": ("t.csv", delimited(";", "\r\n").encode("cp1252")),
    "semicolons, utf-16, gz": ("t.csv.gz", gzip.compress(delimited(";").encode("utf-16"))),
    "bars": ("t.txt", delimited("|").encode()),
    "quoted header between tabs": ("t.tsv", delimited("\t", quoting=csv.QUOTE_ALL).encode()),
    "gz": ("t.csv.gz", gzip.compress(delimited(",").encode())),
    "gz in disguise": ("t.csv", gzip.compress(delimited(",").encode())),
    "text called gz": ("t.csv.gz", delimited(",").encode()),
    "jsonl": ("t.jsonl", "\n".join(objects()).encode()),
    "jsonl, crlf, bom": ("t.jsonl", "\r\n\r\n".join(objects()).encode("utf-8-sig")),
    "jsonl, utf-16": ("t.ndjson", "\n".join(objects()).encode("utf-16")),
    "jsonl, cp1252": ("t.jsonl", "\n".join(objects()).encode("cp1252")),
    "jsonl, gz": ("t.jsonl.gz", gzip.compress("\n".join(objects(True)).encode())),
    "jsonl called csv": ("t.csv", "\n".join(objects()).encode()),
    "json array": ("t.json", f"[{', '.join(objects())}]".encode()),
    "parquet": ("t.parquet", parquet()),
    "parquet, gz": ("t.parquet.gz", gzip.compress(parquet())),
}


@pytest.mark.parametrize("make", MAKES)
def test_every_command_reads_every_format(tmp_path: Path, make: str) -> None:
    """Training, scoring with labels (evaluate, compare), predict and init."""
    name, content = MAKES[make]
    file = tmp_path / name
    file.write_bytes(content)
    assert load_rows(content, name.partition(".")[2]) == ROWS
    split = load_split(file, ["text"], "label", ",", "classification", ["y", "x"])
    assert list(zip(split.texts, split.targets, strict=True)) == [
        (text, int(label == "x")) for text, label in ROWS
    ]
    given = open_input(file, ["text"])
    scored = list(text_rows(given, Wanted(("text",), ("score",))))
    assert [row.texts[0] for row in scored if isinstance(row, TextRow)] == [row[0] for row in ROWS]
    sheet = read_sheet(file)
    assert list(zip(sheet.columns["text"], sheet.columns["label"], strict=True)) == ROWS
    assert sheet.columns["id"] == ["1", "2", "3", "4"]


def test_rows_without_a_header_have_numbered_columns(load: Callable[..., Any]) -> None:
    rows = "".join(f"{i},text number {i},{'xy'[i % 2]}\n" for i in range(8))
    names = {"text": "column_2", "label": "column_3"}
    loaded = load({"t.csv": rows}, train="t.csv", dev_fraction=0.25, **names)
    assert len(loaded.rows()) + len(loaded.rows("dev")) == 8
    named = load({"t.csv": f"id,text,label\n{rows}"}, train="t.csv", dev_fraction=0.25, **names)
    named.problem("t.csv: no column 'column_2'", "'id', 'text', 'label'")


def test_windows_1252_and_a_column_without_a_name(load: Callable[..., Any]) -> None:
    content = ",text,note,note\n" + "".join(f"{'xy'[i % 2]},é {i},1,2\n" for i in range(8))
    files = {"t.csv": content.encode("cp1252")}
    loaded = load(files, train="t.csv", dev_fraction=0.5, label="column_1")
    assert loaded.dataset.labels == ("x", "y")
    loaded.notice("t.csv: is not UTF-8; reading it as Windows-1252")


def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(b'h,i\r\n"a\nb\r\nc",x\n\ny\rlast,row')
    rows = list(read_rows(find_format(file)))
    assert [row.number for row in rows] == [2, 6, 7]
    assert rows[1] == BadRow(6, "1 field, the header has 2")


AWKWARD_LINES = st.text(st.sampled_from(list('ab",\t\r\n ')), max_size=40)


@settings(max_examples=40, deadline=None)
@given(AWKWARD_LINES, st.sampled_from(["none", "standard"]))
def test_cells_are_those_of_the_csv_module(text: str, quoting: Any) -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "t.csv"
        file.write_bytes(f"h,i\n{text}".encode())
        rows = list(read_rows(find_format(file, columns=["h", "i"], quoting=quoting)))
    marks = csv.QUOTE_NONE if quoting == "none" else csv.QUOTE_MINIMAL
    reader = csv.reader(io.StringIO(text, newline=""), quoting=marks, strict=True)
    expected: list[list[str] | None] = []
    while True:
        try:
            cells = next(reader, None)
        except csv.Error:
            expected.append(None)
            continue
        if cells is None:
            break
        if cells:
            expected.append(cells if len(cells) == 2 else None)
    found = [list(row.values.values()) if isinstance(row, Row) else None for row in rows]
    assert found == expected


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    import tracemalloc

    file = tmp_path / "t.csv.gz"
    line = f"{'word ' * 200},x\n"
    with gzip.open(file, "wt", compresslevel=1) as stream:
        stream.write("text,label\n")
        for _ in range(10):
            stream.write(line * 800)
    tracemalloc.start()
    try:
        given = find_format(file, columns=["text"])
        assert sum(1 for _ in read_rows(given)) == 8_000
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()
