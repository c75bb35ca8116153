"""Load the recipe's data: read, check everything, report all problems together, split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from factory.data.dataset import Dataset, Split, facts_of
from factory.data.formats import Quoting, find_format
from factory.data.holdout import hold_out
from factory.data.hub import read_hub
from factory.data.labels import Encoding, encode
from factory.data.messages import Findings, count, first_few, missing_file, quote
from factory.data.source import local_files
from factory.data.table import Columns, Table, columns_of, read_table
from factory.errors import DataError
from factory.recipe.data import DataSettings
from factory.recipe.task import TASK_TRAITS
from serving.bundle import Task

HEADLINE = "the data cannot be used"
SPLIT_PAIRS = (("train", "dev"), ("train", "test"), ("dev", "test"))


def load_dataset(
    settings: DataSettings,
    base_directory: Path,
    cache_directory: Path,
    notice: Callable[[str], None],
) -> tuple[Dataset, dict[str, object]]:
    """Read and check the recipe's data.

    Args:
        base_directory: the recipe's folder; local paths are relative to it.
        cache_directory: for the Arrow caches of a hub data set.
        notice: called with each remark that is not an error.

    Returns:
        The splits, and the facts of `facts_of`.

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
        hub_tables = read_hub(settings, base_directory, cache_directory, findings)
        tables = {table.split: table for table in hub_tables}
    for table in tables.values():
        _check_texts(table, settings.text_columns, settings.allow_empty, findings)
    encoding = encode(tables, settings, findings)
    for split, table in tables.items():
        _note_repeats(table, encoding.targets[split], findings)
    across = _check_leaks(tables, settings.allow_duplicates, findings)
    splits: dict[str, Split] = {}
    if not findings.problems:
        splits = {name: _split(table, encoding) for name, table in tables.items()}
        if settings.dev_fraction is not None:
            splits["train"], splits["dev"] = hold_out(
                splits["train"], encoding.labels, settings, findings
            )
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
        quoting: of a delimited file; unset: the usual one of its delimiter.

    Raises:
        DataError: with every problem, each with its line; labels the model lacks included.
    """
    if not path.is_file():
        raise DataError(f"{path} cannot be scored", [missing_file("the data", str(path), path)])
    settings = DataSettings(
        train=str(path.absolute()),
        dev_fraction=0.5,  # never used: the file is read whole
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
        _check_texts(table, text_columns, settings.allow_empty, findings)
        encoding = encode({path.stem: table}, settings, findings)
    if table is None or findings.problems:
        raise DataError(f"{path} cannot be scored", findings.problems)
    return _split(table, encoding)


def check_batch(rows: int, batch_size: int, what: str) -> None:
    """Check that there are enough rows for one batch.

    Raises:
        DataError: with both numbers.
    """
    if rows < batch_size:
        problem = (
            f"{count(rows, 'row')} do not fill one batch of {batch_size}; "
            f"lower batch_size to {rows} or less, or add rows"
        )
        raise DataError(f"too little data for {what}", [problem])


def _split(table: Table, encoding: Encoding) -> Split:
    # the checks found no None among texts and targets
    texts: tuple[Any, ...] = table.texts
    targets: Any = encoding.targets[table.split]
    return Split(table.split, texts[0], texts[1] if len(texts) == 2 else None, targets)


def _check_texts(
    table: Table, columns: Sequence[str], allow_empty: bool, findings: Findings
) -> None:
    """Note texts that are null, empty or blank; null is never accepted."""
    for name, column in zip(columns, table.texts, strict=True):
        nulls = [row for row, text in enumerate(column) if text is None]
        blanks = [row for row, text in enumerate(column) if text is not None and not text.strip()]
        for rows, what in ((nulls, "without a text (null)"), (blanks, "with an empty text")):
            if not rows:
                continue
            line = f"{table.places(rows)}: {count(len(rows), 'row')} {what} in column {name!r}"
            if rows is nulls:
                findings.problems.append(f"{line}; remove or fill them")
            elif allow_empty:
                findings.notices.append(f"{line} (data.allow_empty)")
            else:
                findings.problems.append(
                    f"{line}; remove or fill them, or set data.allow_empty = true"
                )


def _note_repeats(table: Table, targets: Sequence[object], findings: Findings) -> None:
    """Note repeated inputs within a split, those with different labels first."""
    first: dict[tuple[str | None, ...], int] = {}
    same: list[tuple[int, int]] = []
    unlike: list[tuple[int, int]] = []
    for row, key in enumerate(table.keys()):
        earlier = first.setdefault(key, row)
        if earlier != row:
            (same if targets[earlier] == targets[row] else unlike).append((earlier, row))
    for pairs, which in ((unlike, "another label"), (same, "the same label")):
        if not pairs:
            continue
        example = ""
        if pairs is unlike:
            early, late = pairs[0]
            text = " | ".join(column[late] or "" for column in table.texts)
            labels = quote(table.labels[early]), quote(table.labels[late])
            example = f"; for example {quote(text)} is {labels[0]} and then {labels[1]}"
        repeats = "row repeats" if len(pairs) == 1 else "rows repeat"
        equal = first_few(
            f"{table.unit} {table.numbers[late]} = {table.unit} {table.numbers[early]}"
            for early, late in pairs
        )
        findings.notices.append(
            f"{table.source}: {len(pairs):,} {repeats} an earlier input with {which}: "
            f"{equal}{example}"
        )


def _check_leaks(
    tables: Mapping[str, Table], allow_duplicates: bool, findings: Findings
) -> dict[str, int]:
    """Note inputs that are in two splits; return their number by pair of splits."""
    counts: dict[str, int] = {}
    for one, other in SPLIT_PAIRS:
        if one not in tables or other not in tables:
            continue
        earlier, later = tables[one], tables[other]
        first: dict[tuple[str | None, ...], int] = {}
        for row, key in enumerate(earlier.keys()):
            first.setdefault(key, row)
        equal = [
            f"{later.unit} {later.numbers[row]} = {earlier.places([first[key]])}"
            for row, key in enumerate(later.keys())
            if key in first
        ]
        counts[f"{one}/{other}"] = len(equal)
        if not equal:
            continue
        rows = count(len(equal), "row")
        line = f"{later.source}: {rows} of {other} also in {one}: {first_few(equal)}"
        if allow_duplicates:
            findings.notices.append(f"{line} (data.allow_duplicates)")
        else:
            findings.problems.append(
                f"{line}; remove them from one of the two, or set data.allow_duplicates = true"
            )
    return counts
