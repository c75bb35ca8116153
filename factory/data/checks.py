"""Checks of texts, repeated rows, rows in two splits, and the number of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from factory.data.messages import Findings, count, first_few, quote
from factory.data.table import Table
from factory.errors import DataError

Targets = Sequence[int | None] | Sequence[float | None] | Sequence[tuple[int, ...] | None]
SPLIT_PAIRS = (("train", "dev"), ("train", "test"), ("dev", "test"))


def check_batch(rows: int, batch_size: int, what: str) -> None:
    """Refuse to train on fewer rows than one batch.

    Raises:
        DataError: with both numbers.
    """
    if rows < batch_size:
        problem = (
            f"{count(rows, 'row')} do not fill one batch of {batch_size}; "
            f"lower batch_size to {rows} or less, or add rows"
        )
        raise DataError(f"too little data for {what}", [problem])


def check_texts(
    table: Table, columns: Sequence[str], allow_empty: bool, findings: Findings
) -> None:
    """Note texts that are null, empty, or nothing but blanks; null is never accepted."""
    for name, column in zip(columns, table.texts, strict=True):
        nulls = [row for row, text in enumerate(column) if text is None]
        blanks = [row for row, text in enumerate(column) if text is not None and not text.strip()]
        for rows, what in ((nulls, "without a text (null)"), (blanks, "with an empty text")):
            if not rows:
                continue
            told = f"{table.places(rows)}: {count(len(rows), 'row')} {what} in column {name!r}"
            if rows is nulls:
                findings.problems.append(f"{told}; remove or fill them")
            elif allow_empty:
                findings.notices.append(f"{told} (data.allow_empty)")
            else:
                findings.problems.append(
                    f"{told}; remove or fill them, or set data.allow_empty = true"
                )


def check_repeats(table: Table, targets: Targets, findings: Findings) -> None:
    """Notices about repeated inputs in one split, those with different labels first."""
    first: dict[tuple[str | None, ...], int] = {}
    same: list[tuple[int, int]] = []
    unlike: list[tuple[int, int]] = []
    for row, key in enumerate(table.keys()):
        earlier = first.setdefault(key, row)
        if earlier != row:
            (same if targets[earlier] == targets[row] else unlike).append((earlier, row))
    for pairs, which in ((unlike, "another label"), (same, "the same label")):
        if pairs:
            repeats = "row repeats" if len(pairs) == 1 else "rows repeat"
            example = f"; for example {_example(table, pairs[0])}" if pairs is unlike else ""
            findings.notices.append(
                f"{table.source}: {len(pairs):,} {repeats} an earlier input with {which}: "
                f"{_told(table, table, pairs)}{example}"
            )


def check_leaks(
    tables: Mapping[str, Table], allow_duplicates: bool, findings: Findings
) -> dict[str, int]:
    """Note inputs that are in two splits; return their number by pair of splits."""
    counts: dict[str, int] = {}
    for one, other in SPLIT_PAIRS:
        if one not in tables or other not in tables:
            continue
        pairs = _shared(tables[one], tables[other])
        counts[f"{one}/{other}"] = len(pairs)
        if not pairs:
            continue
        told = (
            f"{tables[other].source}: {count(len(pairs), 'row')} of {other} also in {one}: "
            f"{_told(tables[one], tables[other], pairs)}"
        )
        if allow_duplicates:
            findings.notices.append(f"{told} (data.allow_duplicates)")
        else:
            findings.problems.append(
                f"{told}; remove them from one of the two, or set data.allow_duplicates = true"
            )
    return counts


def _shared(one: Table, other: Table) -> list[tuple[int, int]]:
    """Row of `one` (its first) and row of `other`, for each row of `other` found in `one`."""
    first: dict[tuple[str | None, ...], int] = {}
    for row, key in enumerate(one.keys()):
        first.setdefault(key, row)
    return [(first[key], row) for row, key in enumerate(other.keys()) if key in first]


def _told(one: Table, other: Table, pairs: Sequence[tuple[int, int]]) -> str:
    """Which row equals which, the later one first: "line 9 = line 3"."""

    def earlier(row: int) -> str:
        return f"{one.unit} {one.numbers[row]}" if one is other else one.places([row])

    return first_few(
        f"{other.unit} {other.numbers[late]} = {earlier(early)}" for early, late in pairs
    )


def _example(table: Table, pair: tuple[int, int]) -> str:
    early, late = pair
    text = " | ".join(column[late] or "" for column in table.texts)
    labels = table.labels
    return f"{quote(text)} is {quote(labels[early])} and then {quote(labels[late])}"
