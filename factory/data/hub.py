"""Read a hub data set, or a local folder in its layout, into tables with `datasets`."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factory.data.messages import Findings, nearest
from factory.data.source import hub_folder
from factory.data.table import UNLABELLED_SPLIT, Columns, Table, column_problems, columns_of
from factory.errors import DataError, MissingDependencyError, short_list
from factory.recipe.data import DataSettings
from factory.store import sha256_of_directory

if TYPE_CHECKING:
    from datasets import Dataset as LoadedDataset
    from datasets import DatasetDict


def read_hub(
    settings: DataSettings,
    base_directory: Path,
    cache_directory: Path,
    findings: Findings,
    unlabelled: bool = False,
) -> list[Table]:
    """The labelled or the unlabelled splits of the recipe's hub data set.

    Raises:
        DataError: the data set cannot be loaded.
    """
    named = [
        ("train", settings.train_split),
        ("dev", None if settings.dev_fraction is not None else settings.dev_split),
        ("test", settings.test_split),
    ]
    if unlabelled:
        named = [(UNLABELLED_SPLIT, name) for name in settings.unlabelled_split or ()]
    assert settings.hub is not None, "only called for a hub source"
    folder = hub_folder(settings.hub, base_directory, "data.hub")
    cache = cache_directory
    if folder is not None:
        findings.notices.append(f"data.hub {settings.hub!r}: reading the local folder, not the hub")
        # by content, because the cache key of `datasets` is paths and modification times
        cache = cache_directory / sha256_of_directory(folder)[:16]
    source = settings.hub if settings.config is None else f"{settings.hub} ({settings.config})"
    with library_errors(source):
        splits = _load(settings, folder, cache)
    tables: list[Table] = []
    for split, name in named:
        if name is None:
            continue
        if name not in splits:
            findings.problems.append(
                f"{source}: no split {name!r}{nearest(name, splits)}; the splits are "
                f"{short_list(list(splits))}; set data.{split}_split"
            )
            continue
        place = f"{source}, split {name}"
        columns = columns_of(settings, split)
        if problems := column_problems(place, splits[name].column_names, columns.wanted):
            findings.problems.extend(problems)
        elif len(splits[name]) == 0:
            findings.problems.append(f"{place}: has no rows")
        elif table := _table(splits[name], split, place, columns, findings):
            tables.append(table)
    return tables


def _load(settings: DataSettings, folder: Path | None, cache: Path) -> DatasetDict:
    import datasets
    from datasets.packaged_modules.csv.csv import Csv

    name = str(settings.hub if folder is None else folder.resolve())
    revision = settings.revision if folder is None else None
    builder = datasets.load_dataset_builder(
        name, settings.config, revision=revision, cache_dir=str(cache)
    )
    csv_options: dict[str, object] = {}
    if isinstance(builder, Csv):
        names = (*settings.text_columns, settings.label)
        csv_options = {
            "keep_default_na": False,
            "skip_blank_lines": False,
            "index_col": False,
            "converters": dict.fromkeys(names, str),
        }
        if settings.quoting == "none":
            csv_options["quoting"] = csv.QUOTE_NONE
    return datasets.load_dataset(
        name, settings.config, revision=revision, cache_dir=str(cache), **csv_options
    )


def _table(
    dataset: LoadedDataset, split: str, source: str, columns: Columns, findings: Findings
) -> Table | None:
    from datasets import ClassLabel, LargeList, List

    for name in columns.text:
        kind = getattr(dataset.features[name], "dtype", "nested values")
        if kind not in ("string", "large_string", "string_view"):
            findings.problems.append(f"{source}: column {name!r} holds {kind}, not text")
            return None
    numbers = list(range(1, len(dataset) + 1))
    texts: Any = tuple(_column(dataset, name) for name in columns.text)
    if columns.label is None:
        return Table(split, source, "row", numbers, texts, [], typed=True)
    feature = dataset.features[columns.label]
    if isinstance(feature, List | LargeList):
        feature = feature.feature
    labels = _column(dataset, columns.label)
    # labels read from csv are text, as in a local csv file, unless the data set types them
    from_csv = getattr(dataset.info, "builder_name", None) == "csv"
    typed = not (from_csv and all(isinstance(value, str) for value in labels))
    names = tuple(feature.names) if isinstance(feature, ClassLabel) else None
    return Table(split, source, "row", numbers, texts, labels, typed, names)


def _column(dataset: LoadedDataset, name: str) -> list[Any]:
    rows: Mapping[str, list[Any]] = dataset.select_columns([name])[:]
    return rows[name]


@contextmanager
def library_errors(source: str) -> Iterator[None]:
    """Silence `datasets` and turn its exceptions into DataErrors.

    Raises:
        DataError: the library could not read the source.
        MissingDependencyError: the library is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        message = f"reading data needs {error.name}; run: pip install 'tinybert-factory[build]'"
        raise MissingDependencyError(message) from error
    library = (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError)
    try:
        with _quiet(), warnings.catch_warnings():
            # the csv builder leaves closing its file to the garbage collector
            warnings.simplefilter("ignore", ResourceWarning)
            # pandas warns when it drops the surplus fields of a row
            warnings.filterwarnings("error", message="Length of header or names")
            yield
    except (*library, ImportError, TypeError, KeyError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = f"{type(cause).__name__}: {' '.join(str(cause).split())}"
        raise DataError("the data cannot be read", [f"{source}: {reason}"]) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Turn progress bars and log lines of `datasets` and the hub off, then restore them."""
    import datasets
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    verbosity = datasets.logging.get_verbosity()
    bars = not datasets.are_progress_bars_disabled(), not are_progress_bars_disabled()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.disable_progress_bars()
    disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if bars[0]:
            datasets.enable_progress_bars()
        if bars[1]:
            enable_progress_bars()
