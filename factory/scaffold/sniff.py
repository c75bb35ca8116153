"""A data file of unknown make to columns, through the reader that runs use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory.data.formats import DELIMITERS, FILES_HEADLINE, DataFile, find_format
from factory.data.messages import missing_file, places
from factory.data.reading import BadRow, Row, read_rows
from factory.errors import DataError

ENCODINGS = {"utf-16": "UTF-16", "cp1252": "Windows-1252, not UTF-8"}


@dataclass(frozen=True, slots=True)
class Sheet:
    """The columns of a file.

    Args:
        columns: values of each column, all equally many.
        numbers: line (or row) of each value, from 1.
        notes: what is odd about the file, one line each.
    """

    file: DataFile
    columns: dict[str, list[Any]]
    numbers: list[int]
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The file's path, as messages show it."""
        return self.file.name

    def __len__(self) -> int:
        return len(self.numbers)


def read_sheet(path: Path, wanted: Sequence[str] = ()) -> Sheet:
    """Read every column; rows that cannot be read are left out and noted.

    Args:
        wanted: column names the user gave.

    Raises:
        DataError: the file does not exist, or cannot be read.
    """
    if not path.is_file():
        raise DataError(FILES_HEADLINE, [missing_file("init", str(path), path)])
    file = find_format(path, columns=wanted, quoting="guess")
    if file.format.kind == "delimited" and len(file.columns) < 2:
        problem = (
            f"{path}: one column only; a text and a label are needed, separated by "
            f"{', '.join(DELIMITERS.values())}"
        )
        raise DataError(FILES_HEADLINE, [problem])
    rows: list[Row] = []
    bad: dict[str, list[int]] = {}
    for row in read_rows(file):
        if isinstance(row, BadRow):
            bad.setdefault(row.reason, []).append(row.number)
        else:
            rows.append(row)
    if not rows and not bad:
        raise DataError(FILES_HEADLINE, [f"{path}: has a header but no rows"])
    names = list(file.columns) or list(dict.fromkeys(key for row in rows for key in row.values))
    columns = {name: [row.values.get(name) for row in rows] for name in names}
    return Sheet(file, columns, [row.number for row in rows], (*_notes(file, bad),))


def _notes(file: DataFile, bad: dict[str, list[int]]) -> list[str]:
    notes = []
    if file.format.encoding in ENCODINGS:
        notes.append(f"encoding {ENCODINGS[file.format.encoding]}")
    if not file.format.header:
        notes.append(f"no header line; the columns are called {', '.join(file.columns)}")
    if file.format.quoting == "none" and file.format.delimiter != "\t":
        notes.append("quotation marks are ordinary characters")
    return notes + [
        f"{places(file.name, file.unit, numbers)}: {reason}; left out"
        for reason, numbers in bad.items()
    ]
