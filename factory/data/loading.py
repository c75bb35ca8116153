"""The library `datasets`, made quiet, lossless and clear about its errors."""

from __future__ import annotations

import datetime
import glob
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factory.data.table import UNLABELLED_SPLIT, Table
from factory.data.telling import Findings, quote
from factory.errors import DataError, MissingDependencyError
from factory.recipe.data import DataSettings

if TYPE_CHECKING:
    from datasets import Dataset as LoadedDataset


def load_file(
    builder: str, path: Path, cache_directory: Path, arguments: Mapping[str, object]
) -> LoadedDataset:
    """One local file as a `datasets.Dataset`; `arguments` are the builder's own."""
    import datasets

    # a path is taken as a glob pattern, so brackets in a folder's name need escaping
    files = {"train": [glob.escape(str(path.resolve()))]}
    return datasets.load_dataset(
        builder, data_files=files, split="train", cache_dir=str(cache_directory), **arguments
    )


@contextmanager
def library_errors(source: str) -> Iterator[None]:
    """Run `datasets` without bars and log lines; its exceptions become DataErrors.

    Raises:
        DataError: the library could not read the source.
        MissingDependencyError: the library is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        message = f"reading data needs {error.name}; pip install 'tinybert-factory[build]'"
        raise MissingDependencyError(message) from error
    try:
        with _quiet(), warnings.catch_warnings():
            # the csv builder leaves closing its file to the garbage collector
            warnings.simplefilter("ignore", ResourceWarning)
            # pandas says so when it drops the surplus fields of a row
            warnings.filterwarnings("error", message="Length of header or names")
            yield
    except (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError) as error:
        raise DataError("the data cannot be read", [f"{source}: {_reason(error)}"]) from error
    except (ImportError, TypeError, KeyError) as error:
        raise DataError("the data cannot be read", [f"{source}: {_reason(error)}"]) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no log lines of the two libraries; their settings come back."""
    import datasets
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    verbosity = datasets.logging.get_verbosity()
    datasets_bars = not datasets.are_progress_bars_disabled()
    hub_bars = not are_progress_bars_disabled()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.disable_progress_bars()
    disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if datasets_bars:
            datasets.enable_progress_bars()
        if hub_bars:
            enable_progress_bars()


def columns_of(dataset: LoadedDataset, names: Sequence[str]) -> list[list[object]]:
    """Whole columns as Python values, in the order of `names`."""
    rows: Mapping[str, list[object]] = dataset.select_columns(list(dict.fromkeys(names)))[:]
    return [rows[name] for name in names]


def agreed(
    table: Table, name: str, scanned: Sequence[object], loaded: list[object]
) -> list[object]:
    """The loaded column, after checking that the scan of the same file found the same.

    Raises:
        DataError: another number of rows, or another value somewhere.
    """
    if len(scanned) != len(loaded):
        problem = (
            f"{table.source}: the file holds {len(scanned)} records, datasets reads {len(loaded)}; "
            "save it as parquet, or report it with the file"
        )
        raise DataError("two readers disagree about the data", [problem])
    if any(isinstance(value, datetime.datetime) for value in loaded):
        # JSON texts that all look like dates are turned into dates; the file's text stands
        return list(scanned)
    for row, (old, new) in enumerate(zip(scanned, loaded, strict=True)):
        if old != new:
            problem = (
                f"{table.places([row])}: column {name!r} holds {quote(old)}, datasets reads "
                f"{quote(new)}; save the file as parquet, or report it with the file"
            )
            raise DataError("two readers disagree about the data", [problem])
    return loaded


def typed_table(
    dataset: LoadedDataset, split: str, source: str, settings: DataSettings, findings: Findings
) -> Table | None:
    """A loaded data set as a table; None when a column holds what cannot be used."""
    from datasets import ClassLabel, LargeList, List

    strings = ("string", "large_string", "string_view")
    for name in settings.text_columns:
        if getattr(dataset.features[name], "dtype", None) not in strings:
            kind = getattr(dataset.features[name], "dtype", "nested values")
            findings.problems.append(f"{source}: column {name!r} holds {kind}, not text")
            return None
    texts: Any = columns_of(dataset, settings.text_columns)
    numbers = list(range(1, len(dataset) + 1))
    if split == UNLABELLED_SPLIT:
        return Table(split, source, "row", numbers, tuple(texts), [], typed=True)
    label = dataset.features[settings.label]
    several = isinstance(label, List | LargeList)
    if several and settings.task == "multilabel":
        label = label.feature
        several = False
    if several or getattr(label, "dtype", None) in (None, "list", "dict"):
        findings.problems.append(
            f"{source}: column {settings.label!r} holds several values per row; one label per row "
            'is expected; if several names apply to a text, set data.task = "multilabel"'
        )
        return None
    return Table(
        split=split,
        source=source,
        unit="row",
        numbers=numbers,
        texts=tuple(texts),
        labels=columns_of(dataset, [settings.label])[0],
        typed=True,
        class_names=tuple(label.names) if isinstance(label, ClassLabel) else None,
    )


def _reason(error: BaseException) -> str:
    """The library's words, from the innermost cause, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}"
