"""Rows to score, and the number and reason of every row that cannot be scored."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from factory.data.reading import BadRow
from factory.errors import FactoryError
from factory.predict.rows import TextRow, Wanted, open_input, row_values, text_rows

WANTED = Wanted(texts=("text",), new=("label", "score"))


def rows_of(path: Path, wanted: Wanted = WANTED) -> list[TextRow | BadRow]:
    return list(text_rows(open_input(path, wanted.texts), wanted))


def reasons_of(path: Path, wanted: Wanted = WANTED) -> list[tuple[int, str | None]]:
    """The number of each row, and why it cannot be scored."""
    return [
        (row.row.number, None) if isinstance(row, TextRow) else (row.number, row.reason)
        for row in rows_of(path, wanted)
    ]


def test_places_and_reasons_in_csv(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(
        b'id,text\n1,"two\nl\xc3\xafnes"\n\n2\n3,  \n4,caf\xe9\n5,a "quote" inside\n6,"x"y\n7,last'
    )
    assert reasons_of(path) == [
        (2, None),
        (5, "1 field, the header has 2"),
        (6, "text is empty"),
        (7, "byte 0xe9 is not part of the file's encoding; save it as UTF-8"),
        (8, None),
        (9, "text after a closing quotation mark"),
        (10, None),
    ]


def test_places_and_reasons_in_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b'{"text": "\xc3\xa4", "id": 1}\r\n \n{"text": \n[1]\n{"id": 2}\n{"text": 3}\n'
        b'{"text": ""}\n'
        b'{"text": "\\ud800"}\n{"text": "b\xff"}\n{"text": "c", "score": 1}\n'
        b'{"text": "d", "more": 1}\n' + b"[" * 5000 + b'\n{"text": "last"}'
    )
    read = reasons_of(path)
    assert [number for number, reason in read if reason is None] == [1, 11, 13]
    reasons = {number: reason or "" for number, reason in read}
    assert reasons[4] == "a list instead of a JSON object"
    assert reasons[5] == "no text"
    assert reasons[6] == "text is not text"
    assert reasons[7] == "text is empty"
    assert reasons[10] == "field 'score' would be added; see --prefix"
    for number in (3, 8, 9, 12):
        assert reasons[number].startswith("invalid JSON"), reasons[number]
    strict = Wanted(("text",), (), same_fields=True)
    assert dict(reasons_of(path, strict))[11] == "field 'more' does not exist in the first row"


def test_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "rows.parquet"
    table = pyarrow.table({"text": ["a", None, "", "b"], "id": [1, 2, 3, 4]})
    pyarrow.parquet.write_table(table, path)
    read = rows_of(path)
    assert [reason for _, reason in reasons_of(path)] == [None, "no text", "text is empty", None]
    assert isinstance(read[3], TextRow)
    values = row_values(open_input(path, ["text"]), read[3].row)
    assert values == {"text": "b", "id": 4}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"\n \n", "is empty"),
        ("a.csv", b"id,txt\n1,a\n", "no column 'text' (did you mean 'txt'?); the columns"),
        ("a.jsonl", b'{"txt": "a"}', "set --text to one of them"),
        ("a.csv", b"text,text\na,b\n", "two columns are called 'text'"),
        ("a.csv", b"text,label\na,b\n", "column 'label' exists already and would be added"),
        ("a.csv.gz", gzip.compress(b"text\n" + b"a\n" * 999, mtime=0)[:-9], "be decompressed"),
        ("a.parquet", b"PAR1text", "cannot be read as Parquet"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FactoryError) as raised:
        rows_of(path)
    assert f"{path}: " in str(raised.value)
    assert message in str(raised.value)
