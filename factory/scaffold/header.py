"""Whether the first line of a delimited file names its columns, and what they are called."""

from __future__ import annotations

from collections.abc import Sequence

from factory.data.regression import DECIMAL_NUMBER

LONGEST_NAME = 60  # characters; longer ones are texts
MOST_WORDS = 5


def has_header(rows: Sequence[Sequence[str]], wanted: Sequence[str] = ()) -> bool:
    """Whether the first row names columns: short, distinct, no numbers, no value found below.

    Args:
        wanted: names the user gave; a first row that holds one is a header.
    """
    first, rest = rows[0], rows[1:]
    if set(wanted) & set(first):
        return True
    if len(rows) < 2 or any(not _is_name(value) for value in first if value.strip()):
        return False
    if len({value for value in first if value.strip()}) < 2:
        return False
    return not any(
        sum(row[i] == name for row in rest) > 1 for i, name in enumerate(first) if name.strip()
    )


def _is_name(value: str) -> bool:
    short = len(value) <= LONGEST_NAME and len(value.split()) <= MOST_WORDS
    return short and DECIMAL_NUMBER.fullmatch(value.strip()) is None and "\n" not in value


def header_names(header: Sequence[str]) -> list[str]:
    """A name for each column: its own, column_N where it is blank, numbered where it repeats."""
    names: list[str] = []
    for position, name in enumerate(header, start=1):
        given = name if name.strip() else f"column_{position}"
        new, repeat = given, 2
        while new in names:
            new, repeat = f"{given}_{repeat}", repeat + 1
        names.append(new)
    return names
