"""Label cells that hold several names, one entry per name and back again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from factory.data.label_checks import note_rows
from factory.data.table import Table
from factory.data.telling import Findings, count, first_few, quote

ADVICE = "an empty list says that no label applies"

Cells = list[list[object]]


def split_cell(cell: str, separator: str) -> list[str]:
    """The names in a csv or tsv label cell, without blanks around them; a blank cell has none."""
    if not cell.strip():
        return []
    return [name.strip() for name in cell.split(separator)]


def cells_of(table: Table, separator: str, findings: Findings) -> Cells:
    """The labels of each row, as typed by the source; empty where a problem was noted."""
    if not table.typed:
        return [list(split_cell(str(value), separator)) for value in table.labels]
    nulls = [row for row, value in enumerate(table.labels) if value is None]
    note_rows(table, nulls, f"without labels (null); {ADVICE}", findings)
    odd = [
        row
        for row, value in enumerate(table.labels)
        if value is not None and not isinstance(value, list)
    ]
    if odd:
        values = first_few(dict.fromkeys(quote(table.labels[row]) for row in odd))
        what = f"whose labels are no list ({values}); multilabel needs a list of names per row"
        note_rows(table, odd, what, findings)
    cells = [value if isinstance(value, list) else [] for value in table.labels]
    if _are_flags(cells):
        findings.problems.append(
            f"{table.source}: the labels look like one 0 or 1 per label; write the names (or the "
            "positions in data.labels) of those that apply"
        )
    return cells


def flattened(table: Table, cells: Cells) -> Table:
    """A table with one row per label of a cell, which the checks of single labels understand.

    It has no texts, and a row of the source stands in it as often as it has labels.
    """
    numbers = [
        number for number, cell in zip(table.numbers, cells, strict=True) for _ in range(len(cell))
    ]
    labels = [label for cell in cells for label in cell]
    return replace(table, numbers=numbers, texts=(), labels=labels)


def gathered(
    table: Table, cells: Cells, flat: Sequence[int | None], findings: Findings
) -> list[tuple[int, ...] | None]:
    """The class indices of each row in increasing order, each once; None with an unusable label."""
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
            f"{table.places(repeating)}: {count(len(repeating), 'row')} with a label that stands "
            "twice in its cell; it counts once"
        )
    return targets


def _are_flags(cells: Cells) -> bool:
    """Whether every cell is a list of equally many integers 0 and 1, which are no positions."""
    if len({len(cell) for cell in cells}) != 1 or len(cells[0]) < 2:
        return False
    flags = all(type(value) is int and value in (0, 1) for cell in cells for value in cell)
    return flags and any(len(set(cell)) < len(cell) for cell in cells)
