"""Label columns to finite numbers."""

from __future__ import annotations

import math
import re

from factory.data.label_checks import UNLABELLED, note_unlabelled
from factory.data.table import Table
from factory.data.telling import Findings, count, first_few, quote

DECIMAL_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


def numbers_of(table: Table, findings: Findings) -> list[float | None]:
    """The target of each row; None, with the problem noted, where it is no finite number."""
    numbers = [_number(value, table.typed) for value in table.labels]
    bad = [row for row, number in enumerate(numbers) if number is None]
    if bad:
        values = first_few(dict.fromkeys(quote(table.labels[row]) for row in bad))
        findings.problems.append(
            f"{table.places(bad)}: {count(len(bad), 'target')} not a finite number ({values}); "
            "regression needs one number per row"
        )
    elif table.unit == "row" and all(number == UNLABELLED for number in numbers):
        note_unlabelled(table, range(len(numbers)), findings)
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
