"""JSON Lines text to a table, each line checked."""

from __future__ import annotations

import json

from factory.data.source import LocalFile
from factory.data.table import UNLABELLED_SPLIT, Table, wanted_columns
from factory.data.telling import Findings, count, missing_column, places
from factory.recipe.data import DataSettings

Row = dict[str, object]


def scan_jsonl(
    text: str, file: LocalFile, settings: DataSettings, findings: Findings
) -> Table | None:
    """The rows of a JSON Lines file, or None when no row can be used."""
    if not text.strip():
        findings.problems.append(f"{file.name}: is empty; it needs one JSON object per line")
        return None
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    complaints: dict[str, list[int]] = {}
    rows: list[tuple[int, Row]] = []
    for number, line in enumerate(lines, start=1):
        row = _parse(line)
        if isinstance(row, str):
            complaints.setdefault(row, []).append(number)
        else:
            rows.append((number, row))
    kept = _with_all_columns(rows, file, settings, findings, complaints)
    for complaint, numbers in complaints.items():
        where = places(file.name, "line", numbers)
        findings.problems.append(f"{where}: {count(len(numbers), 'line')} {complaint}")
    if not kept:
        return None
    texts = tuple([_text(row[name]) for _, row in kept] for name in settings.text_columns)
    labelled = file.split != UNLABELLED_SPLIT
    labels = [row[settings.label] for _, row in kept] if labelled else []
    return Table(file.split, file.name, "line", [number for number, _ in kept], texts, labels, True)


def _with_all_columns(
    rows: list[tuple[int, Row]],
    file: LocalFile,
    settings: DataSettings,
    findings: Findings,
    complaints: dict[str, list[int]],
) -> list[tuple[int, Row]]:
    """The rows that hold every column with usable values; the others become complaints."""
    keys = list(dict.fromkeys(key for _, row in rows for key in row))
    wanted = wanted_columns(file.split, settings)
    absent = [(name, setting) for name, setting in wanted if name not in keys]
    if rows:
        findings.problems.extend(
            missing_column(file.name, setting, name, keys) for name, setting in absent
        )
    if absent:
        return []
    kept: list[tuple[int, Row]] = []
    for number, row in rows:
        complaint = _complaint(row, wanted)
        if complaint is None:
            kept.append((number, row))
        else:
            complaints.setdefault(complaint, []).append(number)
    return kept


def _complaint(row: Row, wanted: list[tuple[str, str]]) -> str | None:
    for name, setting in wanted:
        if name not in row:
            return f"without the key {name!r}; every line needs it"
        value = row[name]
        strings = value if isinstance(value, list) else [value]
        if any(isinstance(item, str) and not _is_unicode(item) for item in strings):
            return f"where {name!r} holds half of a surrogate pair, which is no character"
        if setting == "text" and value is not None and not isinstance(value, str):
            return f"where {name!r} is {_kind(value)}, not text; write it in quotation marks"
    return None


def _parse(line: str) -> Row | str:
    """The object on a line, or what is wrong with the line."""
    if not line.strip():
        return "blank; remove it"
    try:
        value = json.loads(line, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        return f"with invalid JSON ({reason})"
    if not isinstance(value, dict):
        return f"with {_kind(value)} in place of a JSON object"
    return value


def _unique(pairs: list[tuple[str, object]]) -> Row:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return row


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON value")


def _text(value: object) -> str | None:
    assert value is None or isinstance(value, str), "other values became complaints"
    return value


def _is_unicode(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: object) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", list: "a list"}
    names |= {dict: "an object", str: "text", type(None): "null"}
    return names[type(value)]
