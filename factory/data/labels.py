"""Convert label columns to class indices, one or several per row, or to regression targets."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from factory.data.formats import DECIMAL_NUMBER
from factory.data.messages import Findings, count, first_few, nearest, numbered, quote
from factory.data.table import Table
from factory.errors import short_list
from factory.recipe.data import DataSettings

UNLABELLED = -1  # GLUE's value for the hidden labels of its test splits
NO_LABELS_ADVICE = "an empty list means that no label applies"
WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]*")

Names = list[str | None]
Cells = list[list[object]]


@dataclass(frozen=True, slots=True)
class Encoding:
    """The labels of all splits as numbers.

    Args:
        labels: class names in order; ("value",) for regression.
        targets: by split, per row a class index, class indices or a number; None where a problem
            was noted.
    """

    labels: tuple[str, ...]
    targets: Mapping[str, list[int | None] | list[tuple[int, ...] | None] | list[float | None]]


def encode(tables: Mapping[str, Table], settings: DataSettings, findings: Findings) -> Encoding:
    """Convert the labels of every table to numbers and note every unusable label."""
    if settings.task == "regression":
        numbers = {split: _numbers_of(table, findings) for split, table in tables.items()}
        return Encoding(("value",), numbers)
    if settings.task == "classification":
        return Encoding(*_encode_classes(tables, settings, findings))
    cells = {
        split: _cells_of(table, settings.label_separator, findings)
        for split, table in tables.items()
    }
    flat = {split: _flattened(table, cells[split]) for split, table in tables.items()}
    labels, indices = _encode_classes(flat, settings, findings)
    targets = {
        split: _gathered(table, cells[split], indices[split], findings)
        for split, table in tables.items()
    }
    return Encoding(labels, targets)


def _encode_classes(
    tables: Mapping[str, Table], settings: DataSettings, findings: Findings
) -> tuple[tuple[str, ...], dict[str, list[int | None]]]:
    """Class names in order, and the class index of each row by split."""
    names = {split: _names(table, settings, findings) for split, table in tables.items()}
    if settings.labels is None:
        _check_spellings(tables, names, findings)
    order = _class_order(tables, names, settings)
    _check_known(tables, names, order, settings, findings)
    if "train" in tables:
        _check_train(tables["train"], names["train"], order, settings, findings)
    index = {name: i for i, name in enumerate(order)}
    targets = {
        split: [None if name is None else index.get(name) for name in column]
        for split, column in names.items()
    }
    return order, targets


def _names(table: Table, settings: DataSettings, findings: Findings) -> Names:
    """The class name of each row; None where the row has no usable label."""
    labels = table.labels
    _note_rows(table, [i for i, v in enumerate(labels) if v is None], "without a label", findings)
    _note_rows(table, [i for i, v in enumerate(labels) if v == ""], "with an empty label", findings)
    odd = [i for i, v in enumerate(labels) if v is not None and type(v) not in (str, int)]
    what = "whose label is neither text nor a whole number ({})"
    if settings.task == "classification" and any(isinstance(labels[row], list) for row in odd):
        what += '; if several labels apply to a text, set data.task = "multilabel"'
    _note_rows(table, odd, what, findings)
    if {str, int} <= {type(value) for value in labels}:
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
    """The labels as integers, or None; in delimited text only if data.labels names them."""
    labels = table.labels
    if any(type(value) is int for value in labels):
        return [value if type(value) is int else None for value in labels]
    if table.typed or settings.labels is None:
        return None
    filled = [value for value in labels if isinstance(value, str) and value]
    written = all(map(WHOLE_NUMBER.fullmatch, filled))
    if not filled or not written or any(map(WHOLE_NUMBER.fullmatch, settings.labels)):
        return None
    return [int(value) if isinstance(value, str) and value else None for value in labels]


def _names_of_integers(
    table: Table, integers: list[int | None], settings: DataSettings, findings: Findings
) -> Names:
    unlabelled = [row for row, value in enumerate(integers) if value == UNLABELLED]
    all_unlabelled = table.unit == "row" and set(integers) <= {UNLABELLED, None}
    if unlabelled and (table.class_names is not None or all_unlabelled):
        _note_unlabelled(table, unlabelled, findings)
        integers = [None if value == UNLABELLED else value for value in integers]
    declared = _declared_names(table, settings, findings)
    if declared is None:
        return [None if value is None else str(value) for value in integers]
    inside = range(len(declared))
    outside = [
        row for row, value in enumerate(integers) if value is not None and value not in inside
    ]
    what = (
        f"whose label ({{}}) is outside 0..{len(declared) - 1}, the positions in data.labels "
        f"({short_list(declared)})"
    )
    _note_rows(table, outside, what, findings)
    return [declared[v] if v is not None and v in inside else None for v in integers]


def _declared_names(
    table: Table, settings: DataSettings, findings: Findings
) -> Sequence[str] | None:
    """The names of the integers, from data.labels or the source; None if neither has any."""
    ours, theirs = settings.labels, table.class_names
    if ours is None:
        return theirs
    if theirs is None:
        wrong = [f"{i} means {name!r}" for i, name in enumerate(ours) if name != str(i)]
        problem = (
            f"data.labels: an integer label is a position in it, so {first_few(wrong)}; if the "
            "integers are the names themselves, remove data.labels or write the labels as text"
        )
        numerals = any(map(WHOLE_NUMBER.fullmatch, ours))
        if wrong and numerals and problem not in findings.problems:
            findings.problems.append(problem)
        return ours
    if set(ours) == set(theirs):
        return theirs
    if len(ours) == len(theirs):
        pairs = first_few(f"{old!r} -> {new!r}" for old, new in zip(theirs, ours, strict=True))
        findings.notices.append(f"{table.source}: data.labels renames the classes: {pairs}")
        return ours
    findings.problems.append(
        f"{table.source}: declares {count(len(theirs), 'class', 'classes')} "
        f"({short_list(theirs)}), data.labels names {len(ours)}; remove data.labels or "
        "name each class"
    )
    return theirs


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


# several labels per row


def split_cell(cell: str, separator: str) -> list[str]:
    """The label names in a delimited cell, stripped; none in a blank cell."""
    if not cell.strip():
        return []
    return [name.strip() for name in cell.split(separator)]


def _cells_of(table: Table, separator: str, findings: Findings) -> Cells:
    """The list of labels of each row; empty where a problem was noted."""
    if not table.typed:
        return [list(split_cell(str(value), separator)) for value in table.labels]
    nulls = [row for row, value in enumerate(table.labels) if value is None]
    _note_rows(table, nulls, f"without labels (null); {NO_LABELS_ADVICE}", findings)
    odd = [i for i, v in enumerate(table.labels) if v is not None and not isinstance(v, list)]
    what = "whose labels are not a list ({}); multilabel needs a list of names per row"
    _note_rows(table, odd, what, findings)
    cells = [value if isinstance(value, list) else [] for value in table.labels]
    if _are_flags(cells):
        findings.problems.append(
            f"{table.source}: the labels look like one 0 or 1 per label; list the names (or the "
            "positions in data.labels) of the labels that apply"
        )
    return cells


def _flattened(table: Table, cells: Cells) -> Table:
    """A table with one row per label and without texts, for the checks of single labels."""
    numbers = [number for number, cell in zip(table.numbers, cells, strict=True) for _ in cell]
    return replace(
        table, numbers=numbers, texts=(), labels=[label for cell in cells for label in cell]
    )


def _gathered(
    table: Table, cells: Cells, flat: Sequence[int | None], findings: Findings
) -> list[tuple[int, ...] | None]:
    """The distinct class indices of each row, increasing; None if one label is unusable."""
    targets: list[tuple[int, ...] | None] = []
    repeating: list[int] = []
    start = 0
    for row, cell in enumerate(cells):
        found = flat[start : start + len(cell)]
        start += len(cell)
        usable = sorted({index for index in found if index is not None})
        targets.append(None if None in found else tuple(usable))
        if None not in found and len(usable) < len(cell):
            repeating.append(row)
    if repeating:
        findings.notices.append(
            f"{table.places(repeating)}: {count(len(repeating), 'row')} with the same label "
            "twice; it counts once"
        )
    return targets


def _are_flags(cells: Cells) -> bool:
    """Whether every cell has one 0 or 1 for each of the same number of labels."""
    if len({len(cell) for cell in cells}) != 1 or len(cells[0]) < 2:
        return False
    flags = all(type(value) is int and value in (0, 1) for cell in cells for value in cell)
    return flags and any(len(set(cell)) < len(cell) for cell in cells)


# numbers


def _numbers_of(table: Table, findings: Findings) -> list[float | None]:
    """The target of each row; None where a problem was noted."""
    numbers = [_number(value, table.typed) for value in table.labels]
    bad = [row for row, number in enumerate(numbers) if number is None]
    what = "whose label is not a finite number ({}); regression needs one number per row"
    _note_rows(table, bad, what, findings)
    if table.unit == "row" and all(number == UNLABELLED for number in numbers):
        _note_unlabelled(table, range(len(numbers)), findings)
    return numbers


def _number(value: object, typed: bool) -> float | None:
    if isinstance(value, str) and not typed and DECIMAL_NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


# checks of class labels


def _check_known(
    tables: Mapping[str, Table],
    names: Mapping[str, Names],
    order: Sequence[str],
    settings: DataSettings,
    findings: Findings,
) -> None:
    """Note labels that data.labels lacks, and labels of dev and test that train lacks."""
    trained: set[str | None] = set(names.get("train", ()))
    for split, table in tables.items():
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(names[split]):
            if name is not None:
                rows.setdefault(name, []).append(row)
        if settings.labels is not None:
            unnamed = {name: found for name, found in rows.items() if name not in order}
            _note_labels(table, unnamed, "not in data.labels", order, findings)
            rows = {name: found for name, found in rows.items() if name in order}
        if split != "train" and "train" in tables:
            untrained = {name: found for name, found in rows.items() if name not in trained}
            reason = "without a row in train (add one, or correct the label)"
            known = sorted(name for name in trained if name is not None)
            _note_labels(table, untrained, reason, known, findings)


def _check_train(
    table: Table,
    names: Names,
    order: Sequence[str],
    settings: DataSettings,
    findings: Findings,
) -> None:
    """Note classes without a row in train, and data with a single class."""
    present = {name for name in names if name is not None}
    absent = [name for name in order if name not in present]
    missing = f"{table.source}: no row has the label {short_list(absent)}"
    if absent and settings.labels is not None:
        findings.problems.append(f"{missing} of data.labels; add rows or remove it there")
    elif absent:
        findings.notices.append(f"{missing} the data set declares")
    if len(present) < 2:
        found = f"only {quote(present.pop())}" if present else "none"
        findings.problems.append(
            f"{table.source}: at least two classes are needed, column {settings.label!r} has "
            f"{found}"
        )


def _check_spellings(
    tables: Mapping[str, Table], names: Mapping[str, Names], findings: Findings
) -> None:
    """Note names that differ only by case or surrounding blanks, over all splits."""
    spellings: dict[str, dict[str, str]] = {}
    rows = Counter(name for column in names.values() for name in column)
    for split, column in names.items():
        if tables[split].class_names is not None:
            continue
        for row, name in enumerate(column):
            if name is not None and name not in spellings.setdefault(name.strip().casefold(), {}):
                spellings[name.strip().casefold()][name] = tables[split].places([row])
    for group in spellings.values():
        if len(group) > 1:
            listed = first_few(
                f"{name!r} ({count(rows[name], 'row')}, first at {place})"
                for name, place in group.items()
            )
            findings.problems.append(
                f"labels that differ only by case or surrounding blanks: {listed}; "
                "write them one way, or list them in data.labels if they are different"
            )


def _note_rows(table: Table, rows: Sequence[int], what: str, findings: Findings) -> None:
    """Note one problem for all the given rows, with their labels in place of {}."""
    if rows:
        once = _distinct(table, rows)
        labels = first_few(dict.fromkeys(quote(table.labels[row]) for row in rows))
        what = what.replace("{}", labels)
        findings.problems.append(f"{table.places(once)}: {count(len(once), 'row')} {what}")


def _note_unlabelled(table: Table, rows: Sequence[int], findings: Findings) -> None:
    """Note a split that was published without its labels."""
    everything = len(rows) == len(table)
    which = "has no labels" if everything else f"has no labels in {count(len(rows), 'row')}"
    findings.problems.append(
        f"{table.places(rows)}: the split {which} ({UNLABELLED} marks a hidden label); "
        f"choose another split as data.{table.split}_split, or a file with labels"
    )


def _note_labels(
    table: Table,
    rows: Mapping[str, list[int]],
    reason: str,
    known: Sequence[str],
    findings: Findings,
) -> None:
    """Note one problem for all labels in `rows`, each with its rows and the nearest known label."""
    if rows:
        listed = first_few(
            f"{quote(name)} ({numbered(table.unit, [table.numbers[row] for row in found])})"
            f"{nearest(name, known)}"
            for name, found in rows.items()
        )
        total = len(_distinct(table, [row for found in rows.values() for row in found]))
        findings.problems.append(
            f"{table.source}: {count(len(rows), 'label')} {reason}: {listed}; {count(total, 'row')}"
        )


def _distinct(table: Table, rows: Sequence[int]) -> list[int]:
    """One row per line: a line with several labels has several rows in a flattened table."""
    return list({table.numbers[row]: row for row in reversed(rows)}.values())[::-1]
