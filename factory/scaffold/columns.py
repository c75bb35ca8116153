"""Read a data file as columns, and find the text column, the label column and the task."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory.data.formats import (
    DECIMAL_NUMBER,
    DELIMITERS,
    FILES_HEADLINE,
    DataFile,
    file_error,
    find_format,
)
from factory.data.labels import split_cell
from factory.data.messages import count, missing_file, places
from factory.data.reading import BadRow, Row, read_rows
from factory.data.table import Columns, column_problems
from factory.errors import DataError, RecipeError, short_list
from serving.bundle import Task

LABEL_NAMES = (
    "label", "labels", "class", "category", "categories", "queue", "intent", "target", "sentiment",
    "topic", "tag", "tags", "emotion", "emotions", "score", "rating", "stars", "similarity",
    "department", "priority", "type", "y",
)  # fmt: skip
PAIR_NAMES = (
    ("text", "text_pair"),
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"),
    ("question", "answer"), ("question", "sentence"), ("text_a", "text_b"), ("text1", "text2"),
    ("query", "document"),
)  # fmt: skip
SEPARATORS = (",", ";", "|")
MOST_CLASSES = 200
FEWEST_NUMBERS = 20  # more distinct whole numbers are regression targets, not classes
DATE = re.compile(r"\d{4}-\d\d-\d\d|\d{1,2}[./]\d{1,2}[./]\d{2,4}")


ENCODINGS = {"utf-16": "UTF-16", "cp1252": "Windows-1252, not UTF-8"}


@dataclass(frozen=True, slots=True)
class Sheet:
    """The columns of a file.

    Args:
        columns: the values of each column, all of the same length.
        numbers: line (or row) number of each value, from 1.
        notes: peculiarities of the file, one line each.
    """

    file: DataFile
    columns: dict[str, list[Any]]
    numbers: list[int]
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The file's path in messages."""
        return self.file.name


@dataclass(frozen=True, slots=True)
class Roles:
    """The columns to use and the task.

    Args:
        text: one text column, or two for pairs.
        separator: between the labels in a multilabel cell of a delimited file.
        reasons: one line for each decision.
    """

    text: tuple[str, ...]
    label: str
    task: Task
    separator: str
    reasons: tuple[str, ...]


def read_sheet(path: Path, wanted: Sequence[str] = ()) -> Sheet:
    """Read all columns of a file; unreadable rows are left out and noted.

    Args:
        wanted: column names given by the user.

    Raises:
        DataError: the file does not exist, or cannot be read.
    """
    if not path.is_file():
        raise DataError(FILES_HEADLINE, [missing_file("init", str(path), path)])
    file = find_format(path, columns=wanted, quoting="guess")
    if file.format.kind == "delimited" and len(file.columns) < 2:
        problem = "one column only; a text and a label are needed, separated by "
        raise file_error(file.name, problem + ", ".join(DELIMITERS.values()))
    rows: list[Row] = []
    bad: dict[str, list[int]] = {}
    for row in read_rows(file):
        if isinstance(row, BadRow):
            bad.setdefault(row.reason, []).append(row.number)
        else:
            rows.append(row)
    if not rows and not bad:
        raise file_error(file.name, "has a header but no rows")
    names = list(file.columns) or list(dict.fromkeys(key for row in rows for key in row.values))
    columns = {name: [row.values.get(name) for row in rows] for name in names}
    notes = []
    if file.format.encoding in ENCODINGS:
        notes.append(f"encoding {ENCODINGS[file.format.encoding]}")
    if not file.format.header:
        notes.append(f"no header line; the columns are called {', '.join(file.columns)}")
    if file.format.quoting == "none" and file.format.delimiter != "\t":
        notes.append("quotation marks are ordinary characters")
    notes += [
        f"{places(file.name, file.unit, numbers)}: {reason}; left out"
        for reason, numbers in bad.items()
    ]
    return Sheet(file, columns, [row.number for row in rows], tuple(notes))


def find_roles(sheet: Sheet, text: Sequence[str], label: str | None, task: Task | None) -> Roles:
    """Complete the user's choice of columns and task.

    Raises:
        RecipeError: a column does not exist or cannot be determined.
    """
    names = list(sheet.columns)
    given = Columns(tuple(text), label, "--").wanted
    if wrong := column_problems(sheet.name, names, given):
        raise RecipeError("init", wrong)
    reasons: list[str] = []
    if not text:
        text = _find_text(sheet, label, reasons)
    if label is None:
        label = _find_label(sheet, text, reasons)
    if label in text:
        raise RecipeError("init", [f"{label!r} is the text and the label; give another --label"])
    values = [value for value in sheet.columns[label] if value not in (None, "")]
    separator = _separator(values)
    if task is None:
        task, reason = _task(values, separator)
        reasons.append(f"task {task}: {reason}")
    return Roles(tuple(text), label, task, separator or ",", tuple(reasons))


def _find_text(sheet: Sheet, label: str | None, reasons: list[str]) -> tuple[str, ...]:
    lowered = {name.strip().lower(): name for name in sheet.columns}
    for one, other in PAIR_NAMES:
        if one in lowered and other in lowered:
            pair = (lowered[one], lowered[other])
            if label not in pair and all(_is_text(sheet.columns[name]) for name in pair):
                reasons.append(f"text {pair[0]!r} and {pair[1]!r}: a pair, by their names")
                return pair
    found = [n for n in sheet.columns if n != label and _is_text(sheet.columns[n])]
    if not found:
        problem = (
            f"{sheet.name}: no column looks like text (mostly distinct, several words); "
            f"the columns are {short_list(list(sheet.columns))}; give --text"
        )
        raise RecipeError("init", [problem])
    best = max(found, key=lambda name: sum(len(str(value or "")) for value in sheet.columns[name]))
    others = [name for name in found if name != best]
    also = f" ({short_list(others)} too; --text-pair adds one)" if others else ""
    reasons.append(f"text {best!r}: the longest and mostly distinct{also}")
    return (best,)


def _find_label(sheet: Sheet, text: Sequence[str], reasons: list[str]) -> str:
    found = [n for n in sheet.columns if n not in text and _is_label(sheet.columns[n])]
    known = [name for name in found if name.strip().lower() in LABEL_NAMES]
    if len(found) == 1 or known:
        best = (known or found)[0]
        if known:
            best = min(known, key=lambda name: LABEL_NAMES.index(name.strip().lower()))
        kinds = len({str(value) for value in sheet.columns[best]})
        others = [name for name in found if name != best]
        also = f" ({short_list(others)} could be too)" if others else ""
        reasons.append(f"label {best!r}: {count(kinds, 'distinct value')}{also}")
        return best
    if found:
        problem = f"several columns look like a label: {short_list(found)}"
    else:
        rest = short_list([name for name in sheet.columns if name not in text])
        problem = f"no column looks like a label (few distinct values): {rest}"
    raise RecipeError("init", [f"{sheet.name}: {problem}; give --label"])


def _is_text(values: Sequence[Any]) -> bool:
    texts = [value for value in values if isinstance(value, str) and value.strip()]
    if not texts or len(texts) < len(values) / 2:
        return False
    words = sum(len(value.split()) for value in texts) / len(texts)
    return words >= 2 and len(set(texts)) > len(texts) / 2


def _is_label(values: Sequence[Any]) -> bool:
    present = [value for value in values if value not in (None, "")]
    if any(isinstance(value, list) for value in present):
        return True
    if not present or any(isinstance(value, dict) for value in present):
        return False
    if sum(DATE.match(str(value)) is not None for value in present) > len(present) / 2:
        return False
    kinds = len({str(value) for value in present})
    if _are_numbers(present) and any(float(value) % 1 for value in present):
        return kinds > 1
    if 2 <= kinds <= min(MOST_CLASSES, len(present) / 2):
        return True
    return _separator(present) is not None


def _task(values: Sequence[Any], separator: str | None) -> tuple[Task, str]:
    """The task, and the reason for it."""
    if separator is not None:
        return "multilabel", f"a cell holds several labels, separated by {separator!r}"
    if any(isinstance(value, list) for value in values):
        return "multilabel", "a cell holds a list of labels"
    if _are_numbers(values):
        numbers = {float(value) for value in values}
        if any(number % 1 for number in numbers) or len(numbers) > FEWEST_NUMBERS:
            return "regression", "the labels are numbers"
    return "classification", count(len({str(value) for value in values}), "distinct label")


def _are_numbers(values: Sequence[Any]) -> bool:
    return bool(values) and all(
        (isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300)
        or (isinstance(value, str) and DECIMAL_NUMBER.fullmatch(value) is not None)
        for value in values
    )


def _separator(values: Sequence[Any]) -> str | None:
    """The separator of labels in a cell; its parts recur and are fewer than the distinct cells."""
    if not values or not all(isinstance(value, str) for value in values):
        return None
    cells = set(values)
    for separator in SEPARATORS:
        several = sum(separator in value for value in values)
        parts = Counter(part for cell in cells for part in split_cell(cell, separator))
        recurring = sum(number > 1 for number in parts.values())
        fewer = len(parts) < len(cells) and recurring >= len(parts) / 2
        if several >= len(values) / 50 and fewer and "" not in parts:
            return separator
    return None
