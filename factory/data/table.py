"""The text and label columns of one split, before labels become numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from factory.data.formats import DataFile
from factory.data.messages import SHOWN, Findings, count, missing_column, places
from factory.data.reading import BadRow, declared_classes, kind_of, read_rows
from factory.errors import DataError
from factory.recipe.data import DataSettings

NO_KEY = "no key {!r}; every row needs it"
QUOTED_ADVICE = 'close or double the mark, or set data.quoting = "none" if it is part of the text'
UNQUOTED_ADVICE = 'if the file was written with quoting, set data.quoting = "standard"'
UNLABELLED_SPLIT = "unlabelled"  # the name of the rows read without labels


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns to read.

    Args:
        text: one text column, or two for pairs.
        label: None for unlabelled rows.
        option: prefix of "text" and "label" in messages: "data." or "--".
    """

    text: tuple[str, ...]
    label: str | None
    option: str = "data."

    @property
    def wanted(self) -> list[tuple[str, str]]:
        """Each column with the key or option that names it."""
        texts = [(name, f"{self.option}text") for name in self.text]
        return texts if self.label is None else [*texts, (self.label, f"{self.option}label")]


@dataclass(frozen=True, slots=True)
class Table:
    """The text and label columns of one split, with row numbers.

    Args:
        split: train, dev, test or unlabelled.
        source: the file or hub split, as messages name it.
        unit: the unit of `numbers`.
        numbers: line (or row) number where each row begins, from 1.
        texts: one or two columns of texts; None is a null of the source.
        labels: the label column, as typed by the source; empty for unlabelled rows.
        typed: whether the source distinguishes numbers from text (delimited files do not).
        class_names: names the source declares for its integer labels.
    """

    split: str
    source: str
    unit: Literal["line", "row"]
    numbers: list[int]
    texts: tuple[list[str | None], ...]
    labels: list[object]
    typed: bool
    class_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    def places(self, rows: Sequence[int]) -> str:
        """The locations of the given row indices: "dev.tsv, lines 2, 3"."""
        return places(self.source, self.unit, [self.numbers[row] for row in rows])

    def keys(self) -> list[tuple[str | None, ...]]:
        """The text or texts of each row; rows with equal keys are duplicates."""
        return list(zip(*self.texts, strict=True))


def columns_of(settings: DataSettings, split: str) -> Columns:
    """The recipe's columns of a split."""
    return Columns(settings.text_columns, None if split == UNLABELLED_SPLIT else settings.label)


def column_problems(
    source: str, columns: Sequence[str], wanted: Sequence[tuple[str, str]]
) -> list[str]:
    """One problem for each required column that does not exist."""
    missing = {name: option for name, option in wanted if name not in columns}
    return [missing_column(source, option, name, columns) for name, option in missing.items()]


def read_table(file: DataFile, split: str, columns: Columns, findings: Findings) -> Table | None:
    """Read a file into a table; None if no row can be checked further."""
    lines = file.format.kind == "lines"
    wanted = [("text", "")] if lines else columns.wanted
    if file.columns and (missing := column_problems(file.name, file.columns, wanted)):
        findings.problems.extend(missing)
        return None
    label = None if lines else columns.label
    table = Table(
        split,
        file.name,
        file.unit,
        numbers=[],
        texts=([],) if lines else tuple([] for _ in columns.text),
        labels=[],
        typed=file.format.kind not in ("delimited", "lines"),
        class_names=None if label is None else declared_classes(file, label),
    )
    before = len(findings.problems)
    try:
        _fill(table, file, wanted, label, findings)
    except DataError as error:
        findings.problems.extend(error.problems)
    if len(findings.problems) == before and not len(table):
        findings.problems.append(f"{file.name}: has a header but no rows")
    if file.format.encoding == "cp1252":
        findings.notices.append(f"{file.name}: is not UTF-8; reading it as Windows-1252")
    return table if len(table) else None


def _fill(
    table: Table,
    file: DataFile,
    wanted: Sequence[tuple[str, str]],
    label: str | None,
    findings: Findings,
) -> None:
    """Read the usable rows into the table; note the others, by reason."""
    names = [name for name, _ in wanted]
    texts = names[: len(table.texts)]
    reasons: dict[str, list[int]] = {}
    keys: dict[str, None] = {}  # of JSON objects that lack a required one
    enclosed: list[int] = []
    for row in read_rows(file, names):
        if isinstance(row, BadRow):
            advice = UNQUOTED_ADVICE if file.format.quoting == "none" else QUOTED_ADVICE
            reason = f"{row.reason}; {advice}" if row.quoting else row.reason
            reasons.setdefault(reason, []).append(row.number)
            continue
        if absent := [name for name in names if name not in row.values]:
            keys.update(dict.fromkeys(row.values))
            reasons.setdefault(NO_KEY.format(absent[0]), []).append(row.number)
            continue
        values: Any = [row.values[name] for name in texts]
        if odd := [value for value in values if not isinstance(value, str | None)]:
            reason = f"{kind_of(odd[0])} in column {texts[values.index(odd[0])]!r}, not text"
            reasons.setdefault(reason, []).append(row.number)
            continue
        table.numbers.append(row.number)
        for column, value in zip(table.texts, values, strict=True):
            column.append(value)
        if label is not None:
            table.labels.append(row.values[label])
        if file.format.quoting == "none" and any(map(_looks_quoted, values)):
            enclosed.append(row.number)
    for name, option in dict(wanted).items() if keys and not len(table) else ():
        if name not in keys:
            findings.problems.append(missing_column(file.name, option, name, list(keys)))
            reasons.pop(NO_KEY.format(name), None)
    for reason, numbers in reasons.items():
        more = f" ({count(len(numbers), 'row')})" if len(numbers) > SHOWN else ""
        findings.problems.append(f"{places(file.name, file.unit, numbers)}: {reason}{more}")
    if enclosed:
        findings.notices.append(
            f"{places(file.name, file.unit, enclosed)}: quotation marks around a text are read as "
            f"part of it; {UNQUOTED_ADVICE}"
        )


def _looks_quoted(value: str) -> bool:
    """Whether a csv writer with quoting could have written this field."""
    enclosed = len(value) >= 2 and value.startswith('"') and value.endswith('"')
    return enclosed and '"' not in value[1:-1].replace('""', "")
