"""Find the text and label columns of a file, and the task that the labels imply."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from factory.data.formats import DECIMAL_NUMBER
from factory.data.labels import split_cell
from factory.data.messages import count, first_few_of_names
from factory.data.table import Columns, column_problems
from factory.errors import RecipeError
from factory.scaffold.sniff import Sheet
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
FEWEST_NUMBERS = 20  # distinct whole numbers from which on a column is a quantity
DATE = re.compile(r"\d{4}-\d\d-\d\d|\d{1,2}[./]\d{1,2}[./]\d{2,4}")


@dataclass(frozen=True, slots=True)
class Roles:
    """The columns to use and the task.

    Args:
        text: one text column, or two for pairs.
        separator: between the names of a multilabel cell of a delimited file.
        reasons: why, one line each.
    """

    text: tuple[str, ...]
    label: str
    task: Task
    separator: str
    reasons: tuple[str, ...]


def find_roles(sheet: Sheet, text: Sequence[str], label: str | None, task: Task | None) -> Roles:
    """Complete the user's choice of columns and task.

    Raises:
        RecipeError: a column does not exist or cannot be determined; the message lists the columns.
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
        task = _task(values, separator)
        reasons.append(f"task {task}: {_why(task, values, separator)}")
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
        raise RecipeError(
            "init",
            [
                f"{sheet.name}: no column looks like text (mostly distinct, several words); "
                f"the columns are {first_few_of_names(list(sheet.columns))}; give --text"
            ],
        )
    best = max(found, key=lambda name: _mean_length(sheet.columns[name]))
    others = [name for name in found if name != best]
    also = f" ({first_few_of_names(others)} too; --text-pair adds one)" if others else ""
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
        also = f" ({first_few_of_names(others)} could be too)" if others else ""
        reasons.append(f"label {best!r}: {count(kinds, 'distinct value')}{also}")
        return best
    if found:
        problem = f"cannot tell which column is the label: {first_few_of_names(found)}"
    else:
        rest = first_few_of_names([name for name in sheet.columns if name not in text])
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


def _task(values: Sequence[Any], separator: str | None) -> Task:
    if any(isinstance(value, list) for value in values) or separator is not None:
        return "multilabel"
    if _are_numbers(values):
        numbers = {float(value) for value in values}
        if any(number % 1 for number in numbers) or len(numbers) > FEWEST_NUMBERS:
            return "regression"
    return "classification"


def _why(task: Task, values: Sequence[Any], separator: str | None) -> str:
    if task == "regression":
        return "the labels are numbers"
    if task == "multilabel":
        between = f", with {separator!r} between them" if separator else ""
        return f"a cell names several labels{between}"
    return f"{count(len({str(value) for value in values}), 'distinct label')}"


def _are_numbers(values: Sequence[Any]) -> bool:
    return bool(values) and all(
        (isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300)
        or (isinstance(value, str) and DECIMAL_NUMBER.fullmatch(value) is not None)
        for value in values
    )


def _separator(values: Sequence[Any]) -> str | None:
    """The separator between names in a cell: its parts are fewer than the cells and recur."""
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


def _mean_length(values: Sequence[Any]) -> float:
    return sum(len(str(value or "")) for value in values) / len(values)
