"""Label columns to class indices, one or several per row, or to numbers for regression."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from factory.data.label_checks import (
    UNLABELLED,
    Names,
    note_classes_of_train,
    note_lookalikes,
    note_rows,
    note_unknown,
    note_unlabelled,
)
from factory.data.multilabel import cells_of, flattened, gathered
from factory.data.regression import numbers_of
from factory.data.table import Table
from factory.data.telling import Findings, count, first_few, first_few_of_names, quote
from factory.recipe.data import DataSettings

WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]*")


@dataclass(frozen=True, slots=True)
class Encoding:
    """The labels of all splits as numbers.

    Args:
        labels: class names in order; ("value",) for regression.
        targets: class index, class indices or number per row, by split; None where a problem was
            noted.
    """

    labels: tuple[str, ...]
    targets: Mapping[str, list[int | None] | list[tuple[int, ...] | None] | list[float | None]]


def encode(tables: Mapping[str, Table], settings: DataSettings, findings: Findings) -> Encoding:
    """Turn every table's labels into numbers, noting every label that cannot be one."""
    if settings.task == "regression":
        numbers = {split: numbers_of(table, findings) for split, table in tables.items()}
        return Encoding(("value",), numbers)
    if settings.task == "classification":
        return Encoding(*_encode_classes(tables, settings, findings))
    cells = {
        split: cells_of(table, settings.label_separator, findings)
        for split, table in tables.items()
    }
    flat = {split: flattened(table, cells[split]) for split, table in tables.items()}
    labels, indices = _encode_classes(flat, settings, findings)
    targets = {
        split: gathered(table, cells[split], indices[split], findings)
        for split, table in tables.items()
    }
    return Encoding(labels, targets)


def _encode_classes(
    tables: Mapping[str, Table], settings: DataSettings, findings: Findings
) -> tuple[tuple[str, ...], dict[str, list[int | None]]]:
    """Class names in order, and the class index of each row by split."""
    names = {split: _names(table, settings, findings) for split, table in tables.items()}
    if settings.labels is None:
        note_lookalikes(tables, names, findings)
    order = _class_order(tables, names, settings)
    note_unknown(tables, names, order, settings, findings)
    if "train" in tables:
        note_classes_of_train(tables, names, order, settings, findings)
    index = {name: i for i, name in enumerate(order)}
    targets = {
        split: [None if name is None else index.get(name) for name in column]
        for split, column in names.items()
    }
    return order, targets


def _names(table: Table, settings: DataSettings, findings: Findings) -> Names:
    """The class name of each row; None where the row has none that can be used."""
    labels = table.labels
    note_rows(table, [i for i, v in enumerate(labels) if v is None], "without a label", findings)
    note_rows(table, [i for i, v in enumerate(labels) if v == ""], "with an empty label", findings)
    odd = [i for i, v in enumerate(labels) if v is not None and type(v) not in (str, int)]
    if odd:
        values = first_few(dict.fromkeys(quote(labels[row]) for row in odd))
        what = f"whose label is neither text nor a whole number ({values})"
        note_rows(table, odd, what, findings)
    kinds = {type(value) for value in labels if type(value) in (str, int)}
    if kinds == {str, int}:
        rows = [next(i for i, v in enumerate(labels) if type(v) is kind) for kind in (str, int)]
        findings.problems.append(
            f"{table.places(rows)}: text and numbers mixed in column {settings.label!r} "
            f"({quote(labels[rows[0]])}, {quote(labels[rows[1]])}); write all labels one way"
        )
        return [None] * len(labels)
    integers = _integers(table, settings)
    if integers is None:
        return [value if isinstance(value, str) and value != "" else None for value in labels]
    return _names_of_integers(table, integers, settings, findings)


def _integers(table: Table, settings: DataSettings) -> list[int | None] | None:
    """The labels as integers, if that is what they are; csv and tsv only look like it."""
    labels = [value for value in table.labels if value is not None]
    if any(type(value) is int for value in labels):
        return [value if type(value) is int else None for value in table.labels]
    if table.typed or settings.labels is None:
        return None
    filled = [value for value in labels if value != ""]
    written = all(isinstance(v, str) and WHOLE_NUMBER.fullmatch(v) for v in filled)
    if not filled or not written or any(WHOLE_NUMBER.fullmatch(n) for n in settings.labels):
        return None
    values = table.labels
    return [int(v) if isinstance(v, str) and v != "" else None for v in values]


def _names_of_integers(
    table: Table, integers: list[int | None], settings: DataSettings, findings: Findings
) -> Names:
    present = [value for value in integers if value is not None]
    unlabelled = [row for row, value in enumerate(integers) if value == UNLABELLED]
    all_unlabelled = table.unit == "row" and len(unlabelled) == len(present)
    if unlabelled and (table.class_names is not None or all_unlabelled):
        note_unlabelled(table, unlabelled, findings)
        integers = [None if value == UNLABELLED else value for value in integers]
    declared = _declared_names(table, settings, findings)
    if declared is None:
        return [None if value is None else str(value) for value in integers]
    outside = [
        row
        for row, value in enumerate(integers)
        if value is not None and not 0 <= value < len(declared)
    ]
    if outside:
        values = first_few(dict.fromkeys(str(integers[row]) for row in outside))
        what = (
            f"whose label ({values}) is outside 0..{len(declared) - 1}, the positions in "
            f"data.labels ({first_few_of_names(declared)})"
        )
        note_rows(table, outside, what, findings)
    return [
        declared[value] if value is not None and 0 <= value < len(declared) else None
        for value in integers
    ]


def _declared_names(
    table: Table, settings: DataSettings, findings: Findings
) -> Sequence[str] | None:
    """What integer i is called, by the source or by data.labels; None when nothing says."""
    ours, theirs = settings.labels, table.class_names
    if ours is None or theirs is None:
        names = ours or theirs
        if ours is not None:
            _note_misleading_numerals(ours, findings)
        return names
    if set(ours) == set(theirs):
        return theirs
    if len(ours) == len(theirs):
        pairs = first_few(f"{old!r} -> {new!r}" for old, new in zip(theirs, ours, strict=True))
        findings.notices.append(f"{table.source}: data.labels renames the classes: {pairs}")
        return ours
    findings.problems.append(
        f"{table.source}: declares {count(len(theirs), 'class', 'classes')} "
        f"({first_few_of_names(theirs)}), data.labels names {len(ours)}; remove data.labels or "
        "name each class"
    )
    return theirs


def _note_misleading_numerals(names: Sequence[str], findings: Findings) -> None:
    wrong = [f"{i} means {n!r}" for i, n in enumerate(names) if n != str(i)]
    if wrong and any(WHOLE_NUMBER.fullmatch(name) for name in names):
        problem = (
            f"data.labels: an integer label is a position in it, so {first_few(wrong)}; if the "
            "integers are the names themselves, remove data.labels or write the labels as text"
        )
        if problem not in findings.problems:
            findings.problems.append(problem)


def _class_order(
    tables: Mapping[str, Table], names: Mapping[str, Names], settings: DataSettings
) -> tuple[str, ...]:
    if settings.labels is not None:
        return tuple(settings.labels)
    declared = tables["train"].class_names if "train" in tables else None
    if declared is not None:
        return declared
    columns = [names["train"]] if "train" in names else list(names.values())
    seen = {name for column in columns for name in column if name is not None}
    if all(WHOLE_NUMBER.fullmatch(name) for name in seen):
        return tuple(sorted(seen, key=int))
    return tuple(sorted(seen))
