"""Select the rows of a sheet to train on, and write them as a cleaned copy."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory.data.labels import split_cell
from factory.data.messages import count, places
from factory.errors import FactoryError
from factory.scaffold.columns import Roles, Sheet
from serving.bundle import Task

Label = str | float | list[str]


@dataclass(frozen=True, slots=True)
class Rows:
    """Texts with their labels and line numbers; notes on rows left out and labels rewritten."""

    texts: list[tuple[str, ...]]
    labels: list[Label]
    numbers: list[int]
    notes: tuple[str, ...]


def clean(sheet: Sheet, roles: Roles, elsewhere: Collection[tuple[str, ...]] = ()) -> Rows:
    """The rows with a text and a label; the notes count the others.

    Args:
        elsewhere: texts of dev and test, which train must not contain.
    """
    texts: list[tuple[str, ...]] = []
    labels: list[Label] = []
    numbers: list[int] = []
    left_out: dict[str, list[int]] = {}
    label_column = sheet.columns[roles.label]
    columns = [sheet.columns[name] for name in roles.text]
    for row, number in enumerate(sheet.numbers):
        text = tuple(_text(column[row]) for column in columns)
        label = _label(label_column[row], roles.task, roles.separator)
        if not all(part.strip() for part in text):
            left_out.setdefault("without a text", []).append(number)
        elif label is None:
            left_out.setdefault("without a usable label", []).append(number)
        elif text in elsewhere:
            left_out.setdefault("also in dev or test", []).append(number)
        else:
            texts.append(text)
            labels.append(label)
            numbers.append(number)
    notes = [
        f"{places(sheet.name, sheet.file.unit, lines)}: {count(len(lines), 'row')} {what}; left out"
        for what, lines in left_out.items()
    ]
    labels, spellings = _one_spelling(labels)
    return Rows(texts, labels, numbers, (*notes, *spellings))


def label_counts(labels: Sequence[Label]) -> Counter[str]:
    """Rows of each class or label; none for numbers."""
    return Counter(
        name
        for label in labels
        if not isinstance(label, float)
        for name in (label if isinstance(label, list) else [label])
    )


def write_rows(path: Path, rows: Rows, roles: Roles) -> None:
    """Write the rows as JSON Lines; an existing file is never overwritten.

    Raises:
        FactoryError: the file exists.
    """
    try:
        with path.open("x", encoding="utf-8") as handle:
            for text, label in zip(rows.texts, rows.labels, strict=True):
                row = {**dict(zip(roles.text, text, strict=True)), roles.label: label}
                handle.write(json.dumps(row, ensure_ascii=False) + "\n")
    except FileExistsError as error:
        raise FactoryError(f"{path}: exists already; remove it or give another recipe") from error


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _label(value: Any, task: Task, separator: str) -> Label | None:
    if task == "multilabel":
        parts = value if isinstance(value, list) else split_cell(str(value or ""), separator)
        return list(dict.fromkeys(_text(part).strip() for part in parts if _text(part).strip()))
    if task == "regression":
        try:
            number = float(value)
        except (TypeError, ValueError):
            return None
        return number if math.isfinite(number) else None
    return _text(value) if _text(value).strip() else None


def _one_spelling(labels: Sequence[Label]) -> tuple[list[Label], list[str]]:
    """Replace labels that differ only in case or outer blanks with the most frequent spelling."""
    spellings: dict[str, Counter[str]] = {}
    for name, rows in label_counts(labels).items():
        spellings.setdefault(name.strip().casefold(), Counter())[name] += rows
    usual = {
        name: (found.most_common(1)[0][0] if len(found) > 1 else name)
        for found in spellings.values()
        for name in found
    }
    notes = [
        f"labels that differ only in case or blanks are merged: {', '.join(map(repr, found))}"
        for found in spellings.values()
        if len(found) > 1
    ]

    def written(label: Label) -> Label:
        if isinstance(label, list):
            return list(dict.fromkeys(usual[name] for name in label))
        return label if isinstance(label, float) else usual[label]

    return [written(label) for label in labels], notes
