"""A hub data set, or a local folder in its layout, to tables."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from factory.data import loading
from factory.data.reading import column_problems
from factory.data.source import hub_folder
from factory.data.table import UNLABELLED_SPLIT, Table
from factory.data.telling import Findings, first_few_of_names, nearest
from factory.recipe.data import DataSettings
from factory.store import sha256_of_directory

if TYPE_CHECKING:
    from datasets import Dataset as LoadedDataset
    from datasets import DatasetDict


def read_hub(
    settings: DataSettings, base_directory: Path, cache_directory: Path, findings: Findings
) -> dict[str, Table]:
    """The tables of the labelled splits the recipe names, read by `datasets`.

    Raises:
        DataError: the data set cannot be loaded.
    """
    named = {
        "train": settings.train_split,
        "dev": None if settings.dev_fraction is not None else settings.dev_split,
        "test": settings.test_split,
    }
    wanted = [(split, name) for split, name in named.items() if name is not None]
    tables = _read(wanted, settings, base_directory, cache_directory, findings)
    return {table.split: table for table in tables}


def read_unlabelled_splits(
    settings: DataSettings, base_directory: Path, cache_directory: Path, findings: Findings
) -> list[Table]:
    """The tables of the splits the recipe reads without labels.

    Raises:
        DataError: the data set cannot be loaded.
    """
    wanted = [(UNLABELLED_SPLIT, name) for name in settings.unlabelled_split or ()]
    return _read(wanted, settings, base_directory, cache_directory, findings)


def _read(
    wanted: Sequence[tuple[str, str]],
    settings: DataSettings,
    base_directory: Path,
    cache_directory: Path,
    findings: Findings,
) -> list[Table]:
    assert settings.hub is not None, "only called for a hub source"
    folder = hub_folder(settings.hub, base_directory, "data.hub")
    cache = cache_directory
    if folder is not None:
        findings.notices.append(
            f"data.hub {settings.hub!r} is a local folder; it is read, not the hub"
        )
        # by content, because the library's own key is paths and times of the last change
        cache = cache_directory / sha256_of_directory(folder)[:16]
    source = settings.hub if settings.config is None else f"{settings.hub} ({settings.config})"
    with loading.library_errors(source):
        splits = _load(settings, folder, cache)
    return _tables(splits, wanted, source, settings, findings)


def _load(settings: DataSettings, folder: Path | None, cache: Path) -> DatasetDict:
    import datasets
    from datasets.packaged_modules.csv.csv import Csv

    name = str(settings.hub if folder is None else folder.resolve())
    revision = settings.revision if folder is None else None
    builder = datasets.load_dataset_builder(
        name, settings.config, revision=revision, cache_dir=str(cache)
    )
    arguments: dict[str, object] = {}
    if isinstance(builder, Csv):
        names = (*settings.text_columns, settings.label)
        arguments = {
            "keep_default_na": False,
            "skip_blank_lines": False,
            "index_col": False,
            "converters": dict.fromkeys(names, str),
        }
        if settings.quoting == "none":
            arguments["quoting"] = csv.QUOTE_NONE
    return datasets.load_dataset(
        name, settings.config, revision=revision, cache_dir=str(cache), **arguments
    )


def _tables(
    splits: DatasetDict,
    wanted: Sequence[tuple[str, str]],
    source: str,
    settings: DataSettings,
    findings: Findings,
) -> list[Table]:
    """Each split in `wanted`, a pair of what it is for and what the data set calls it."""
    tables: list[Table] = []
    for split, name in wanted:
        if name not in splits:
            findings.problems.append(
                f"{source}: no split {name!r}{nearest(name, splits)}; the splits are "
                f"{first_few_of_names(list(splits))}; set data.{split}_split"
            )
            continue
        place = f"{source}, split {name}"
        dataset = splits[name]
        if column_problems(place, dataset.column_names, split, settings, findings):
            continue
        if len(dataset) == 0:
            findings.problems.append(f"{place}: holds no rows")
            continue
        table = loading.typed_table(dataset, split, place, settings, findings)
        if table is not None:
            tables.append(_without_types(table, dataset))
    return tables


def _without_types(table: Table, dataset: LoadedDataset) -> Table:
    """Labels read from csv are text, as in a local csv file, unless the data set types them."""
    from_csv = getattr(dataset.info, "builder_name", None) == "csv"
    strings = all(isinstance(label, str) for label in table.labels)
    return replace(table, typed=False) if from_csv and strings else table
