"""Unlabelled text for the student: read, filtered against the labelled splits, and sampled."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from factory.data.dataset import Dataset, read_columns, write_texts
from factory.data.hub import read_hub
from factory.data.messages import Findings, count
from factory.data.source import unlabelled_files
from factory.data.table import UNLABELLED_SPLIT, Table, columns_of, read_table
from factory.errors import DataError
from factory.recipe.data import DataSettings

ROWS_FILE = "unlabelled.parquet"
HEADLINE = "the unlabelled text cannot be used"
REASONS = {
    "empty": "empty",
    "repeated": "repeated",
    "in_train": "also in train",
    "in_dev": "also in dev",
    "in_test": "also in test",
}

Inputs = list[str] | list[tuple[str, str]]
Key = tuple[str, ...]


def load_unlabelled(
    settings: DataSettings,
    base_directory: Path,
    cache_directory: Path,
    dataset: Dataset,
    notice: Callable[[str], None],
) -> tuple[Inputs, dict[str, object]]:
    """Read the recipe's unlabelled text and drop the rows that the student must not learn from.

    Dropped and counted: empty texts, repeated rows, rows of train, and rows of dev and test, the
    last also if only case or blanks differ. Of the others at most `data.unlabelled_limit` are
    drawn; the draw depends only on the seed and the texts, so a higher limit keeps every row of a
    lower one.

    Args:
        cache_directory: for the Arrow caches of a hub data set.
        dataset: the labelled splits.
        notice: called with each remark that is not an error.

    Returns:
        Texts, or pairs of texts, in the order of the sources; and the facts: rows in all, rows
        beyond the limit, and per source its rows, the rows kept, and the rows dropped by reason.

    Raises:
        DataError: with every problem found, each with its file and line; or no row is left.
    """
    findings = Findings()
    columns = columns_of(settings, UNLABELLED_SPLIT)
    tables: list[Table | None] = [
        read_table(file, UNLABELLED_SPLIT, columns, findings)
        for file in unlabelled_files(settings, base_directory)
    ]
    if settings.unlabelled_split is not None:
        tables += read_hub(settings, base_directory, cache_directory, findings, unlabelled=True)
    usable = [] if findings.problems else [table for table in tables if table is not None]
    rows, sources = _filter(usable, dataset)
    summaries = [_summary(source) for source in sources]
    for line in (*findings.notices, *summaries):
        notice(line)
    if findings.problems:
        raise DataError(HEADLINE, findings.problems)
    if not rows:
        raise DataError(HEADLINE, [f"no row is left of {summary}" for summary in summaries])
    found, limit = len(rows), settings.unlabelled_limit
    if limit is not None and found > limit:

        def rank(position: int) -> bytes:
            return hashlib.sha256(f"{settings.seed}\0{rows[position]!r}".encode()).digest()

        rows = [rows[position] for position in sorted(heapq.nsmallest(limit, range(found), rank))]
        notice(f"data.unlabelled_limit: {len(rows):,} of {found:,} unlabelled rows drawn")
    facts = {"rows": len(rows), "beyond_limit": found - len(rows), "sources": sources}
    pairs = dataset.train.text_pairs is not None
    return [(row[0], row[1]) for row in rows] if pairs else [row[0] for row in rows], facts


def write_unlabelled(inputs: Inputs, directory: Path) -> None:
    """Write the rows as one Parquet file; texts are stored exactly."""
    texts = [row if isinstance(row, str) else row[0] for row in inputs]
    pairs = None if isinstance(inputs[0], str) else [row[1] for row in inputs]
    write_texts(directory / ROWS_FILE, texts, pairs, {})


def read_unlabelled(directory: Path) -> Inputs:
    """Read the file of `write_unlabelled`: texts, or pairs of texts.

    Raises:
        DataError: the rows are missing or damaged.
    """
    try:
        columns = read_columns(directory / ROWS_FILE)
        texts: list[str] = columns["text"]
    except (OSError, ValueError, KeyError) as error:
        problem = f"{error}; delete the directory and run the unlabelled stage again"
        raise DataError(f"the unlabelled text in {directory} cannot be read", [problem]) from error
    if "text_pair" in columns:
        return list(zip(texts, columns["text_pair"], strict=True))
    return texts


def _filter(tables: Sequence[Table], dataset: Dataset) -> tuple[list[Key], list[dict[str, Any]]]:
    """The distinct rows to keep, and for each table its rows, kept rows and dropped rows."""
    train = {_key(row) for row in dataset.train.inputs()}
    held_out = {
        _normal(_key(row)): f"in_{split.name}"
        for split in reversed(dataset.splits()[1:])
        for row in split.inputs()
    }
    kept: dict[Key, None] = {}
    sources = []
    for table in tables:
        before = len(kept)
        dropped = dict.fromkeys(REASONS, 0)
        for row in zip(*table.texts, strict=True):
            key = tuple(text or "" for text in row)
            if not all(map(str.strip, key)):
                dropped["empty"] += 1
            elif (reason := held_out.get(_normal(key))) is not None:
                dropped[reason] += 1
            elif key in train:
                dropped["in_train"] += 1
            elif key in kept:
                dropped["repeated"] += 1
            else:
                kept[key] = None
        counts = {"rows": len(table), "dropped": dropped, "kept": len(kept) - before}
        sources.append({"source": table.source, **counts})
    return list(kept), sources


def _summary(source: Mapping[str, Any]) -> str:
    """One line: "reviews.txt: 120 rows, 110 kept; dropped: 3 empty, 7 repeated"."""
    parts = [f"{rows:,} {REASONS[reason]}" for reason, rows in source["dropped"].items() if rows]
    dropped = f"; dropped: {', '.join(parts)}" if parts else ""
    return f"{source['source']}: {count(source['rows'], 'row')}, {source['kept']:,} kept{dropped}"


def _key(row: str | tuple[str, str]) -> Key:
    return (row,) if isinstance(row, str) else row


def _normal(key: Key) -> Key:
    """The texts without differences in case and blanks."""
    return tuple(" ".join(text.split()).casefold() for text in key)
