"""What can be wrong with class labels, within a split and between splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence

from factory.data.table import Table
from factory.data.telling import (
    Findings,
    count,
    first_few,
    first_few_of_names,
    nearest,
    numbered,
    quote,
)
from factory.recipe.data import DataSettings

UNLABELLED = -1  # what GLUE writes into its test splits

Names = list[str | None]


def note_rows(table: Table, rows: Sequence[int], what: str, findings: Findings) -> None:
    """One problem for all the given rows, none when there are none."""
    if rows:
        once = _distinct(table, rows)
        where = table.places(once)
        findings.problems.append(f"{where}: {count(len(once), 'row')} {what}")


def note_unlabelled(table: Table, rows: Sequence[int], findings: Findings) -> None:
    """The problem of a split that was published without its labels."""
    everything = len(rows) == len(table)
    which = "has no labels" if everything else f"has no labels in {count(len(rows), 'row')}"
    findings.problems.append(
        f"{table.places(rows)}: the split {which} ({UNLABELLED} marks a label kept back); "
        f"choose another split as data.{table.split}_split, or a file with labels"
    )


def note_unknown(
    tables: Mapping[str, Table],
    names: Mapping[str, Names],
    order: Sequence[str],
    settings: DataSettings,
    findings: Findings,
) -> None:
    """Labels that data.labels does not name, and labels of dev and test that train lacks."""
    trained: set[str | None] = set(names.get("train", ()))
    for split, table in tables.items():
        unnamed = _rows_lacking(names[split], order)
        if settings.labels is not None:
            _note_labels(table, unnamed, "not in data.labels", order, findings)
        if split == "train" or "train" not in tables:
            continue
        untrained = _rows_lacking(names[split], trained)
        if settings.labels is not None:
            untrained = {name: rows for name, rows in untrained.items() if name in order}
        reason = "without a row in train (add one, or correct the label)"
        known = sorted(name for name in trained if name is not None)
        _note_labels(table, untrained, reason, known, findings)


def note_classes_of_train(
    tables: Mapping[str, Table],
    names: Mapping[str, Names],
    order: Sequence[str],
    settings: DataSettings,
    findings: Findings,
) -> None:
    """Classes train has no row of, and too few classes."""
    source = tables["train"].source
    present = {name for name in names["train"] if name is not None}
    absent = [name for name in order if name not in present]
    if absent and settings.labels is not None:
        findings.problems.append(
            f"{source}: no row has the label {first_few_of_names(absent)} of data.labels; "
            "add rows or remove it there"
        )
    elif absent:
        findings.notices.append(
            f"{source}: no row has the label {first_few_of_names(absent)} the data set declares"
        )
    if len(present) < 2:
        found = f"only {quote(present.pop())}" if present else "none"
        findings.problems.append(
            f"{source}: at least two classes are needed, column {settings.label!r} has {found}"
        )


def note_lookalikes(
    tables: Mapping[str, Table], names: Mapping[str, Names], findings: Findings
) -> None:
    """Names that differ only by case or surrounding blanks, over all splits."""
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
            told = first_few(
                f"{name!r} ({count(rows[name], 'row')}, first at {place})"
                for name, place in group.items()
            )
            findings.problems.append(
                f"labels that differ only by case or surrounding blanks: {told}; "
                "write them one way, or list them in data.labels if they are different"
            )


def _distinct(table: Table, rows: Sequence[int]) -> list[int]:
    """The rows without those of the same line: a line with several labels stands several times."""
    return list({table.numbers[row]: row for row in reversed(rows)}.values())[::-1]


def _rows_lacking(names: Names, known: Container[str | None]) -> dict[str, list[int]]:
    """The rows of each name that is not among the known ones."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        if name is not None and name not in known:
            rows.setdefault(name, []).append(row)
    return rows


def _note_labels(
    table: Table,
    rows: Mapping[str, list[int]],
    reason: str,
    known: Sequence[str],
    findings: Findings,
) -> None:
    if rows:
        told = first_few(
            f"{quote(name)} ({numbered(table.unit, [table.numbers[row] for row in found])})"
            f"{nearest(name, known)}"
            for name, found in rows.items()
        )
        total = len(_distinct(table, [row for found in rows.values() for row in found]))
        findings.problems.append(
            f"{table.source}: {count(len(rows), 'label')} {reason}: {told}; {count(total, 'row')}"
        )
