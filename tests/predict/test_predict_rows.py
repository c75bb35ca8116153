"""Reading rows: whatever a standard writer writes comes back, with its place in the file."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factory.errors import PredictError
from factory.predict.files import data_file
from factory.predict.rows import BadRow, Row, Wanted, read_rows, row_values

WANTED = Wanted(texts=("text",), new=("label", "score"), same_fields=False)
# no lone surrogates, which have no UTF-8 form
CELL = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
# a byte order mark of its own makes a blank line of it, or the file's own
TEXT = CELL.filter(lambda text: text.strip())
EXAMPLES = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def rows_of(path: Path, wanted: Wanted = WANTED) -> list[Row | BadRow]:
    return list(read_rows(data_file(path), wanted))


def values_of(path: Path, columns: list[str]) -> list[dict[str, Any]]:
    """All values of a file without bad rows."""
    rows = rows_of(path)
    assert not [row for row in rows if isinstance(row, BadRow)]
    return [row_values(data_file(path), row, columns) for row in rows if isinstance(row, Row)]


@EXAMPLES
@given(
    rows=st.lists(st.tuples(CELL, TEXT), min_size=1),
    mark=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_csv(tmp_path: Path, rows: list[tuple[str, str]], mark: bool, end: str) -> None:
    stream = io.StringIO()
    # Python before 3.13 leaves a lone "\r" unquoted where lines end in "\n"
    quoting = csv.QUOTE_ALL if end == "\n" else csv.QUOTE_MINIMAL
    writer = csv.writer(stream, lineterminator=end, quoting=quoting)
    writer.writerows([("other", "text"), *rows])
    path = tmp_path / "rows.csv"
    path.write_bytes(stream.getvalue().encode("utf-8-sig" if mark else "utf-8"))
    read = rows_of(path)
    assert [row.content for row in read if isinstance(row, Row)] == [list(row) for row in rows]
    lines = stream.getvalue().splitlines(keepends=True)
    assert len(read) == len(rows)
    if not any(set("\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029") & set(a + b) for a, b in rows):
        assert [row.number for row in read] == list(range(2, len(lines) + 1))


@EXAMPLES
@given(rows=st.lists(st.fixed_dictionaries({"text": TEXT, "n": st.floats() | CELL}), min_size=1))
def test_jsonl(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    rows = json.loads(json.dumps(rows).replace("NaN", "1").replace("Infinity", "2"))
    path = tmp_path / "rows.jsonl.gz"
    content = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + content.encode()))
    assert values_of(path, []) == rows
    assert [row.number for row in rows_of(path)] == list(range(1, 2 * len(rows), 2))


@EXAMPLES
@given(
    rows=st.lists(
        st.tuples(CELL, TEXT).filter(lambda row: not set("\t\r\n") & set("".join(row))), min_size=1
    )
)
def test_tsv_has_no_quoting(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    path = tmp_path / "rows.tsv"
    path.write_text(
        "".join("\t".join(row) + "\n" for row in [("other", "text"), *rows]), "utf-8", newline=""
    )
    read = rows_of(path)
    assert [row.content for row in read if isinstance(row, Row)] == [list(row) for row in rows]


def test_places_and_reasons_in_csv(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(
        b'id,text\n1,"two\nlines"\n\n2\n3,  \n4,caf\xe9\n5,a "quote" inside\n6,"x"y\n7,last'
    )
    assert [(row.number, getattr(row, "reason", None)) for row in rows_of(path)] == [
        (2, None),
        (5, "has 1 cells, the header has 2"),
        (6, "text is empty"),
        (7, "is not UTF-8"),
        (8, None),
        (9, "',' expected after '\"'"),
        (10, None),
    ]


def test_places_and_reasons_in_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b'{"text": "a", "id": 1}\r\n \n{"text": \n[1]\n{"id": 2}\n{"text": 3}\n{"text": ""}\n'
        b'{"text": "\\ud800"}\n{"text": "b\xff"}\n{"text": "c", "score": 1}\n'
        b'{"text": "d", "more": 1}\n' + b"[" * 5000 + b'\n{"text": "last"}'
    )
    read = [(row.number, getattr(row, "reason", "")) for row in rows_of(path)]
    assert [number for number, reason in read if not reason] == [1, 11, 13]
    reasons = dict(read)
    assert reasons[4] == "is not a JSON object"
    assert reasons[5] == "has no text"
    assert reasons[6] == "text is not a text"
    assert reasons[7] == "text is empty"
    assert reasons[10].startswith("has a field 'score'")
    for number in (3, 8, 9, 12):
        assert reasons[number].startswith("is not JSON"), reasons[number]
    strict = Wanted(("text",), (), same_fields=True)
    reasons = {row.number: getattr(row, "reason", "") for row in rows_of(path, strict)}
    assert reasons[11].startswith("has a field 'more'")


def test_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "rows.parquet"
    table = pyarrow.table({"text": ["a", None, "", "b"], "id": [1, 2, 3, 4]})
    pyarrow.parquet.write_table(table, path)
    read = rows_of(path)
    assert [getattr(row, "reason", "") for row in read] == ["", "has no text", "text is empty", ""]
    assert isinstance(read[3], Row)
    assert row_values(data_file(path), read[3], []) == {"text": "b", "id": 4}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.jsonl", b"\n \n", "is empty"),
        ("a.csv", b"id,txt\n1,a\n", "has no column 'text', it has [id, txt]"),
        ("a.jsonl", b'{"txt": "a"}', "perhaps 'txt'"),
        ("a.csv", b"text,text\na,b\n", "two columns are called 'text'"),
        ("a.csv", b"text,label\na,b\n", "has a column 'label' already"),
        ("a.csv.gz", b"text\na\n", "cannot be unpacked"),
        ("a.csv.gz", gzip.compress(b"text\n" + b"a\n" * 999, mtime=0)[:-9], "cannot be unpacked"),
        ("a.parquet", b"text", "cannot be read as Parquet"),
        ("a.xlsx", b"", "the name tells no format"),
        ("a.parquet.gz", b"", "the name tells no format"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(PredictError) as raised:
        rows_of(path)
    assert message in str(raised.value)
    assert str(raised.value).startswith(str(path))
