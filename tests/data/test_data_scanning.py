"""The scanner against the csv module, which reads the same text another way."""

from __future__ import annotations

import csv
import io

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from factory.data.scanning import looks_quoted, scan_quoted, scan_unquoted

FIELD = st.text(st.characters(exclude_categories=["Cs"]))
AWKWARD = st.text(st.sampled_from(list('ab",;\t\r\n ')), max_size=40)


def by_csv_module(text: str, delimiter: str) -> list[list[str]]:
    """Records by the standard library; an empty line is one empty field."""
    lines = io.StringIO(text, newline="")
    return [row or [""] for row in csv.reader(lines, delimiter=delimiter, strict=True)]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(FIELD | AWKWARD, min_size=2, max_size=3), min_size=1),
    st.sampled_from(",\t"),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_what_the_csv_module_writes(table: list[list[str]], delimiter: str, quoting: int) -> None:
    written = io.StringIO(newline="")
    csv.writer(written, delimiter=delimiter, quoting=quoting).writerows(table)
    records = scan_quoted(written.getvalue(), delimiter)
    assert records.fields == table
    assert records.broken is None
    assert not records.stray


@settings(max_examples=300, deadline=None)
@given(AWKWARD)
def test_any_text_reads_as_the_csv_module_does_or_is_reported(text: str) -> None:
    records = scan_quoted(text, ",")
    try:
        expected = by_csv_module(text, ",")
    except csv.Error:
        assert records.broken is not None
        return
    assume(not records.stray)
    assert records.fields == expected
    assert records.broken is None


@settings(max_examples=200, deadline=None)
@given(AWKWARD)
def test_without_quoting_marks_are_characters(text: str) -> None:
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    assert scan_unquoted(text, "\t").fields == [row or [""] for row in reader]


def test_line_numbers_count_every_kind_of_line_end() -> None:
    records = scan_quoted('h,i\r\n"a\nb\r\nc",x\ny,z\rlast,row', ",")
    assert records.numbers == [1, 2, 5, 6]
    assert records.fields[1] == ["a\nb\r\nc", "x"]


def test_the_line_where_a_mark_opened_is_told() -> None:
    late = scan_quoted('h,i\n"a\nb","c\nd,e\n', ",")
    assert late.broken == "the quotation mark opened on line 3 is never closed"
    swallowed = scan_quoted('h,i\n"abc,pos\n"def",neg\n', ",")
    assert swallowed.broken is not None
    assert "opened on line 2 is closed on line 3 and followed by 'def" in swallowed.broken


def test_what_a_writer_with_quoting_leaves() -> None:
    assert looks_quoted('"a ""b"" c"')
    assert looks_quoted('""')
    assert not looks_quoted('"a" and "b"')
    assert not looks_quoted('"')
    assert not looks_quoted('a ""b""')
