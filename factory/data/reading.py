"""Local files to tables: a scan that knows line numbers, then `datasets`, which must agree."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from factory.data import loading, scanning
from factory.data.jsonl import scan_jsonl
from factory.data.source import LocalFile
from factory.data.table import UNLABELLED_SPLIT, Table, wanted_columns
from factory.data.telling import Findings, count, first_few_of_names, missing_column, places
from factory.errors import DataError
from factory.recipe.data import DataSettings
from serving.bundle import sha256_file

DELIMITERS = {"csv": ",", "tsv": "\t"}


def read_file(
    file: LocalFile, settings: DataSettings, cache_directory: Path, findings: Findings
) -> Table | None:
    """The table of a file; None when its problems leave nothing to check."""
    if file.format == "parquet":
        return _read_parquet(file, settings, cache_directory, findings)
    text = scanning.read_text(file.path, file.name, file.gzipped, findings)
    if text is None:
        return None
    if file.format == "jsonl":
        return scan_jsonl(text, file, settings, findings)
    if file.format == "txt":
        return _lines(text, file, findings)
    return _scan_delimited(text, file, settings, findings)


def confirm(file: LocalFile, table: Table, settings: DataSettings, cache_directory: Path) -> Table:
    """The scanned table with the values `datasets` reads from the same file.

    Raises:
        DataError: the two do not agree on every row, or the library cannot read the file.
    """
    if file.format == "parquet":
        return table
    names = (*settings.text_columns, settings.label)
    cache = _cache_of(file, cache_directory)
    with loading.library_errors(file.name):
        path = _unpacked(file, cache)
        if file.format == "jsonl":
            loaded = loading.columns_of(loading.load_file("json", path, cache, {}), names)
        else:
            loaded = _load_delimited(file, path, table.header, names, settings, cache)
    scanned: list[Sequence[object]] = [*table.texts, table.labels]
    values: Any = [
        loading.agreed(table, name, old, new)
        for name, old, new in zip(names, scanned, loaded, strict=True)
    ]
    return replace(table, texts=tuple(values[:-1]), labels=values[-1])


def quoting_of(file: LocalFile, settings: DataSettings) -> str:
    """How quotation marks in a csv or tsv file are meant: "standard" or "none"."""
    return settings.quoting or ("none" if file.format == "tsv" else "standard")


def column_problems(
    source: str, columns: Sequence[str], split: str, settings: DataSettings, findings: Findings
) -> bool:
    """Note wrong and repeated column names; say whether there are any."""
    before = len(findings.problems)
    repeated = [name for name in dict.fromkeys(columns) if columns.count(name) > 1]
    if repeated:
        findings.problems.append(
            f"{source}: column names that stand twice: {first_few_of_names(repeated)}; "
            "every column needs its own name"
        )
    findings.problems.extend(
        missing_column(source, setting, name, columns)
        for name, setting in wanted_columns(split, settings)
        if name not in columns
    )
    return len(findings.problems) > before


def _lines(text: str, file: LocalFile, findings: Findings) -> Table | None:
    """Every line of an unlabelled text file as a row, blank ones too."""
    if not text.strip():
        findings.problems.append(f"{file.name}: is empty; it needs one text per line")
        return None
    lines: list[str | None] = [*scanning.LINE_END.split(text)]
    if lines[-1] == "":
        lines.pop()
    numbers = list(range(1, len(lines) + 1))
    return Table(file.split, file.name, "line", numbers, (lines,), [], typed=False)


def _scan_delimited(
    text: str, file: LocalFile, settings: DataSettings, findings: Findings
) -> Table | None:
    if not text.strip():
        findings.problems.append(f"{file.name}: is empty; it needs a header and rows")
        return None
    if quoting_of(file, settings) == "none":
        records = scanning.scan_unquoted(text, DELIMITERS[file.format])
        scanning.note_quotation_marks(records, file.name, findings)
    else:
        records = scanning.scan_quoted(text, DELIMITERS[file.format])
        scanning.note_quoting_errors(records, file.name, findings)
    if not records.fields:
        return None
    header = records.fields[0]
    if column_problems(f"{file.name}, line 1", header, file.split, settings, findings):
        _hint_at_delimiter(file, header, findings)
        return None
    _note_uneven_rows(records, file, settings, findings)
    if len(records.fields) == 1:
        if records.broken is None:
            findings.problems.append(f"{file.name}: holds a header but no rows")
        return None
    rows = [i for i in range(1, len(records.fields)) if len(records.fields[i]) == len(header)]

    def column(name: str) -> list[Any]:
        position = header.index(name)
        return [records.fields[i][position] for i in rows]

    numbers = [records.numbers[i] for i in rows]
    return Table(
        split=file.split,
        source=file.name,
        unit="line",
        numbers=numbers,
        texts=tuple(column(name) for name in settings.text_columns),
        labels=[] if file.split == UNLABELLED_SPLIT else column(settings.label),
        typed=False,
        header=tuple(header),
    )


def _note_uneven_rows(
    records: scanning.Records, file: LocalFile, settings: DataSettings, findings: Findings
) -> None:
    width = len(records.fields[0])
    blank: list[int] = []
    uneven: dict[int, list[int]] = {}
    marked = False
    for number, fields in zip(records.numbers, records.fields, strict=True):
        if fields == [""]:
            blank.append(number)
        elif len(fields) != width:
            uneven.setdefault(len(fields), []).append(number)
            marked = marked or any('"' in value for value in fields)
    if blank:
        where = places(file.name, "line", blank)
        findings.problems.append(f"{where}: {count(len(blank), 'blank line')}; remove them")
    hint = ""
    if marked and quoting_of(file, settings) == "none":
        hint = '; if the file was written with quoting, set data.quoting = "standard"'
    for found, numbers in sorted(uneven.items()):
        findings.problems.append(
            f"{places(file.name, 'line', numbers)}: {count(len(numbers), 'row')} with "
            f"{count(found, 'field')}, the header has {width}{hint}"
        )


def _hint_at_delimiter(file: LocalFile, header: list[str], findings: Findings) -> None:
    others = {",": "commas", "\t": "tabs", ";": "semicolons"}
    mine = others.pop(DELIMITERS[file.format])
    found = [name for mark, name in others.items() if mark in header[0]]
    if len(header) == 1 and found:
        findings.problems.append(
            f"{file.name}, line 1: the header looks separated by {found[0]}; "
            f"the fields of a .{file.format} file are separated by {mine}"
        )


def _load_delimited(
    file: LocalFile,
    path: Path,
    header: Sequence[str],
    names: Sequence[str],
    settings: DataSettings,
    cache: Path,
) -> list[list[object]]:
    from datasets import Features, Value

    # by position: the library renames empty column names and guesses types without features
    positions = [f"column_{i}" for i in range(len(header))]
    quoting = csv.QUOTE_NONE if quoting_of(file, settings) == "none" else csv.QUOTE_MINIMAL
    arguments = {
        "sep": DELIMITERS[file.format],
        "column_names": positions,
        "header": 0,
        "features": Features({name: Value("string") for name in positions}),
        "quoting": quoting,
        "keep_default_na": False,
        "na_filter": False,
        "skip_blank_lines": False,
        "encoding": "utf-8",
        "encoding_errors": "strict",
        "on_bad_lines": "error",
    }
    dataset = loading.load_file("csv", path, cache, arguments)
    return loading.columns_of(dataset, [positions[header.index(name)] for name in names])


def _read_parquet(
    file: LocalFile, settings: DataSettings, cache_directory: Path, findings: Findings
) -> Table | None:
    import pyarrow.parquet

    if scanning.read_bytes(file.path, file.name, file.gzipped, findings) is None:
        return None
    cache = _cache_of(file, cache_directory)
    path = _unpacked(file, cache)
    try:
        with pyarrow.parquet.ParquetFile(path) as parquet:
            columns, rows = parquet.schema_arrow.names, parquet.metadata.num_rows
    except (OSError, ValueError) as error:
        findings.problems.append(f"{file.name}: is no readable parquet file ({error})")
        return None
    if column_problems(file.name, columns, file.split, settings, findings):
        return None
    if rows == 0:
        findings.problems.append(f"{file.name}: holds columns but no rows")
        return None
    with loading.library_errors(file.name):
        wanted = list(dict.fromkeys(name for name, _ in wanted_columns(file.split, settings)))
        dataset = loading.load_file("parquet", path, cache, {"columns": wanted})
    if len(dataset) != rows:
        problem = f"{file.name}: the file says {rows} rows, datasets reads {len(dataset)}"
        raise DataError("two readers disagree about the data", [problem])
    return loading.typed_table(dataset, file.split, file.name, settings, findings)


def _cache_of(file: LocalFile, cache_directory: Path) -> Path:
    """By content, because the library's own key is the path and the time of the last change."""
    return cache_directory / sha256_file(file.path)[:16]


def _unpacked(file: LocalFile, cache: Path) -> Path:
    """The file itself, or its unpacked copy; the parquet builder cannot read .gz."""
    if not file.gzipped:
        return file.path
    path = cache / f"unpacked.{file.format}"
    cache.mkdir(parents=True, exist_ok=True)
    content = scanning.read_bytes(file.path, file.name, True, Findings())
    assert content is not None, "read once before"
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
    return path
