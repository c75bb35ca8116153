"""Collect data problems and format them: row numbers, counts, similar names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from factory.errors import short_list

SHOWN = 5
LONGEST_QUOTE = 60


@dataclass(frozen=True, slots=True)
class Findings:
    """Problems, which make the data unusable, and notices; reported together at the end."""

    problems: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def places(source: str, unit: str, numbers: Sequence[int]) -> str:
    """A file with its first few row numbers: "dev.tsv, lines 2, 3"."""
    return f"{source}, {numbered(unit, numbers)}"


def numbered(unit: str, numbers: Sequence[int]) -> str:
    """The first few numbers with their unit: "lines 2, 3 and 7 more"."""
    noun = unit if len(numbers) == 1 else f"{unit}s"
    return f"{noun} {first_few(str(number) for number in numbers)}"


def first_few(items: Iterable[str]) -> str:
    """The first items, and the number of the others."""
    listed = list(items)
    hidden = len(listed) - SHOWN
    shown = ", ".join(listed[:SHOWN])
    return f"{shown} and {hidden} more" if hidden > 0 else shown


def count(number: int, thing: str, plural: str | None = None) -> str:
    """A number with its noun: "1 row", "1,200 rows"."""
    return f"{number:,} {thing if number == 1 else plural or thing + 's'}"


def quote(text: object) -> str:
    """A value's repr, shortened."""
    shown = repr(text)
    return shown if len(shown) <= LONGEST_QUOTE else f"{shown[:LONGEST_QUOTE]}..."


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the most similar known name, or an empty string."""
    by_folded = {candidate.strip().casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(name.strip().casefold(), by_folded, n=1, cutoff=0.5)
    return f" (did you mean {by_folded[close[0]]!r}?)" if close else ""


def missing_column(source: str, option: str, name: str, columns: Sequence[str]) -> str:
    """The problem for a column that does not exist; `option` is the key or option naming it."""
    return (
        f"{source}: no column {name!r}{nearest(name, columns)}; the columns are "
        f"{short_list(columns)}; set {option} to one of them"
    )


def missing_file(key: str, name: str, path: Path) -> str:
    """The problem for a file that does not exist; `key` is the recipe key or option naming it."""
    if "://" in name or name.startswith(("http:/", "https:/")):  # a path has lost a slash
        return f"{key}: {name} is a URL; download the file first"
    if path.is_dir():
        return f"{key}: {name} is a folder; name a file in it"
    if not path.parent.is_dir():
        return f"{key}: no such file {name}: the folder {path.parent} does not exist"
    there = sorted(entry.name for entry in path.parent.iterdir())
    close = difflib.get_close_matches(path.name, there, n=3, cutoff=0.5)
    hint = f"; similar names: {', '.join(close)}" if close else ""
    return f"{key}: no such file {name} in {path.parent}{hint}"
