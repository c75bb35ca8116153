"""Load the recipe's data: read, check everything, report all problems together, split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from factory.data.checks import check_leaks, check_repeats, check_texts
from factory.data.dataset import Dataset, Split, facts_of
from factory.data.formats import Quoting, find_format
from factory.data.holdout import hold_out
from factory.data.hub import read_hub
from factory.data.labels import Encoding, encode
from factory.data.messages import Findings, missing_file
from factory.data.source import local_files
from factory.data.table import Columns, Table, columns_of, read_table
from factory.errors import DataError
from factory.recipe.data import DataSettings
from factory.recipe.task import TASK_TRAITS
from serving.bundle import Task

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
        cache_directory: where the Arrow caches of a hub data set go.
        notice: called with each thing worth knowing that is no error.

    Returns:
        The splits, and the facts to record: rows, label balance, longest text, duplicates
        within and across splits, notices.

    Raises:
        DataError: with every problem found, each with its file and line.
    """
    findings = Findings()
    if settings.hub is None:
        files = local_files(settings, base_directory)
        read = {
            split: read_table(file, split, columns_of(settings, split), findings)
            for split, file in files.items()
        }
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
        splits = _splits(tables, encoding, settings, findings)
    for line in findings.notices:
        notice(line)
    if findings.problems:
        raise DataError(HEADLINE, findings.problems)
    dataset = Dataset(
        settings.task, encoding.labels, splits["train"], splits["dev"], splits.get("test")
    )
    return dataset, facts_of(dataset, across, findings.notices)


def load_split(
    path: Path,
    text_columns: Sequence[str],
    label: str,
    label_separator: str,
    task: Task,
    labels: Sequence[str],
    quoting: Quoting | None = None,
) -> Split:
    """Read every row of a labelled file for scoring.

    Args:
        labels: the model's, in order.
        quoting: of a delimited file, where it is not the usual one of its delimiter.

    Raises:
        DataError: with every problem, each with its line; labels the model lacks included.
    """
    if not path.is_file():
        raise DataError(f"{path} cannot be scored", [missing_file("the data", str(path), path)])
    settings = DataSettings(
        train=str(path.absolute()),
        dev_fraction=0.5,  # never drawn: the file is read whole
        text=text_columns[0] if len(text_columns) == 1 else list(text_columns),
        label=label,
        label_separator=label_separator if TASK_TRAITS[task].has_label_sets else ",",
        labels=list(labels) if TASK_TRAITS[task].has_labels else None,
        task=task,
    )
    findings = Findings()
    file = find_format(path, columns=[*text_columns, label], quoting=quoting)
    table = read_table(file, path.stem, Columns(tuple(text_columns), label, "--"), findings)
    if table is not None:
        check_texts(table, text_columns, settings.allow_empty, findings)
        encoding = encode({path.stem: table}, settings, findings)
    if table is None or findings.problems:
        raise DataError(f"{path} cannot be scored", findings.problems)
    return _split(table, encoding)


def _split(table: Table, encoding: Encoding) -> Split:
    # the checks found no None among texts and targets
    texts: tuple[Any, ...] = table.texts
    targets: Any = encoding.targets[table.split]
    return Split(table.split, texts[0], texts[1] if len(texts) == 2 else None, targets)


def _splits(
    tables: Mapping[str, Table],
    encoding: Encoding,
    settings: DataSettings,
    findings: Findings,
) -> dict[str, Split]:
    splits = {name: _split(table, encoding) for name, table in tables.items()}
    if settings.dev_fraction is not None:
        splits["train"], splits["dev"] = hold_out(
            splits["train"], encoding.labels, settings, findings
        )
    return splits
