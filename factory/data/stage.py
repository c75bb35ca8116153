"""The data stage: read, check everything, tell all problems together, split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from factory.data.checks import check_leaks, check_repeats, check_texts
from factory.data.dataset import Dataset, Split
from factory.data.facts import facts_of
from factory.data.holdout import hold_out
from factory.data.hub import read_hub
from factory.data.labels import Encoding, encode
from factory.data.reading import confirm, read_file
from factory.data.source import LocalFile, local_files
from factory.data.table import Table
from factory.data.telling import Findings
from factory.errors import DataError
from factory.recipe.data import DataSettings

HEADLINE = "the data cannot be used as it is"


def load_dataset(
    settings: DataSettings,
    base_directory: Path,
    cache_directory: Path,
    notice: Callable[[str], None],
) -> tuple[Dataset, dict[str, object]]:
    """Read and check the recipe's data.

    Args:
        settings: the recipe's data table.
        base_directory: the recipe's folder; local paths are relative to it.
        cache_directory: where Arrow caches and unpacked files go.
        notice: called with each thing worth knowing that is no error.

    Returns:
        The splits, and the facts to record: rows, label balance, longest text, duplicates
        within and across splits, notices.

    Raises:
        DataError: with every problem found, each with its file and line.
    """
    dataset, across, notices = _load(settings, base_directory, cache_directory, notice, True)
    return dataset, facts_of(dataset, across, notices)


def scan_dataset(
    settings: DataSettings,
    base_directory: Path,
    cache_directory: Path,
    notice: Callable[[str], None],
) -> Dataset:
    """As `load_dataset`, by our own scan of csv, tsv and jsonl alone: `datasets` is not imported.

    Raises:
        DataError: as there, but for two readers that disagree.
    """
    return _load(settings, base_directory, cache_directory, notice, False)[0]


def _load(
    settings: DataSettings,
    base_directory: Path,
    cache_directory: Path,
    notice: Callable[[str], None],
    confirmed: bool,
) -> tuple[Dataset, Mapping[str, int], list[str]]:
    """The checked splits, the duplicates across them, and the notices."""
    findings = Findings()
    files: list[LocalFile] = []
    if settings.hub is None:
        files = local_files(settings, base_directory)
        read = {file.split: read_file(file, settings, cache_directory, findings) for file in files}
        tables = {split: table for split, table in read.items() if table is not None}
    else:
        tables = read_hub(settings, base_directory, cache_directory, findings)
    for table in tables.values():
        check_texts(table, settings.text_columns, settings.allow_empty, findings)
    encoding = encode(tables, settings, findings)
    for split, table in tables.items():
        check_repeats(table, encoding.targets[split], findings)
    across = check_leaks(tables, settings.allow_duplicates, findings)
    splits: dict[str, Split] = {}
    if not findings.problems:
        for file in files if confirmed else ():
            tables[file.split] = confirm(file, tables[file.split], settings, cache_directory)
        splits = _splits(tables, encoding, settings, findings)
    for line in findings.notices:
        notice(line)
    if findings.problems:
        raise DataError(HEADLINE, findings.problems)
    dataset = Dataset(
        settings.task, encoding.labels, splits["train"], splits["dev"], splits.get("test")
    )
    return dataset, across, findings.notices


def _splits(
    tables: Mapping[str, Table],
    encoding: Encoding,
    settings: DataSettings,
    findings: Findings,
) -> dict[str, Split]:
    splits = {}
    for name, table in tables.items():
        # the checks found no None among texts and targets
        texts: tuple[Any, ...] = table.texts
        targets: Any = encoding.targets[name]
        pairs = texts[1] if len(texts) == 2 else None
        splits[name] = Split(name, texts[0], pairs, targets)
    if settings.dev_fraction is not None:
        splits["train"], splits["dev"] = hold_out(
            splits["train"], encoding.labels, settings, findings
        )
    return splits
