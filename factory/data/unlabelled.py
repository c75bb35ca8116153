"""The unlabelled stage: text without labels for the student to learn from, read and thinned out."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from factory.data.dataset import Dataset, read_columns, write_texts
from factory.data.hub import read_unlabelled_splits
from factory.data.messages import Findings, count
from factory.data.source import unlabelled_files
from factory.data.table import UNLABELLED_SPLIT, Table, columns_of, read_table
from factory.errors import DataError
from factory.recipe.data import DataSettings

ROWS_FILE = "unlabelled.parquet"
HEADLINE = "the unlabelled text cannot be used as it is"
REASONS = {
    "empty": "empty",
    "repeated": "repeated",
    "in_train": "already in train",
    "in_dev": "in dev, so excluded",
    "in_test": "in test, so excluded",
}

Inputs = list[str] | list[tuple[str, str]]
Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sifted:
    """How many rows of one file or hub split are kept.

    Args:
        source: the file or hub split, as messages name it.
        rows: how many it holds.
        dropped: how many of them were left out, by reason.
    """

    source: str
    rows: int
    dropped: Mapping[str, int]

    @property
    def kept(self) -> int:
        """The rows the student may learn from, before any limit."""
        return self.rows - sum(self.dropped.values())

    def facts(self) -> dict[str, object]:
        """The counts as JSON data."""
        return {**asdict(self), "kept": self.kept}

    def summary(self) -> str:
        """One line: "reviews.txt: 120 rows, 110 kept; dropped: 3 empty, 7 repeated"."""
        parts = [f"{rows:,} {REASONS[reason]}" for reason, rows in self.dropped.items() if rows]
        dropped = f"; dropped: {', '.join(parts)}" if parts else ""
        return f"{self.source}: {count(self.rows, 'row')}, {self.kept:,} kept{dropped}"


def load_unlabelled(
    settings: DataSettings,
    base_directory: Path,
    cache_directory: Path,
    dataset: Dataset,
    notice: Callable[[str], None],
) -> tuple[Inputs, dict[str, object]]:
    """Read the recipe's unlabelled text and drop what the student must not or need not see.

    Dropped and counted: empty texts, rows that repeat an earlier one, rows of train, and rows of
    dev and test, these also where only case or blanks differ. What is left is thinned to
    `data.unlabelled_limit` by a draw that depends on the seed and the texts alone, so that a
    higher limit keeps every row of a lower one.

    Args:
        cache_directory: where the Arrow caches of a hub data set go.
        dataset: the labelled splits.
        notice: called with each thing worth knowing that is no error.

    Returns:
        Texts, or pairs of texts, in the order of the sources; and the facts to record: rows in
        all, and per source its rows, the rows kept, and the rows dropped by reason.

    Raises:
        DataError: with every problem found, each with its file and line; or no row is left.
    """
    findings = Findings()
    tables = _tables(settings, base_directory, cache_directory, findings)
    rows, sources = _sift(tables, dataset) if not findings.problems else ([], [])
    for line in (*findings.notices, *(source.summary() for source in sources)):
        notice(line)
    if findings.problems:
        raise DataError(HEADLINE, findings.problems)
    if not rows:
        raise DataError(HEADLINE, [f"no row is left of {source.summary()}" for source in sources])
    found = len(rows)
    if settings.unlabelled_limit is not None and len(rows) > settings.unlabelled_limit:
        rows = _draw(rows, settings.unlabelled_limit, settings.seed)
        notice(f"data.unlabelled_limit: {len(rows):,} of {found:,} unlabelled rows drawn")
    facts = {
        "rows": len(rows),
        "beyond_limit": found - len(rows),
        "sources": [source.facts() for source in sources],
    }
    pairs = dataset.train.text_pairs is not None
    return [(row[0], row[1]) for row in rows] if pairs else [row[0] for row in rows], facts


def write_unlabelled(inputs: Inputs, directory: Path) -> None:
    """Write the rows as one parquet file; every text survives exactly."""
    texts = [row if isinstance(row, str) else row[0] for row in inputs]
    pairs = None if isinstance(inputs[0], str) else [row[1] for row in inputs]
    write_texts(directory / ROWS_FILE, texts, pairs, {})


def read_unlabelled(directory: Path) -> Inputs:
    """Read what `write_unlabelled` wrote, as a tokenizer takes it: texts, or pairs of texts.

    Raises:
        DataError: the directory holds no such rows, or broken ones.
    """
    try:
        columns = read_columns(directory / ROWS_FILE)
        texts: list[str] = columns["text"]
    except (OSError, ValueError, KeyError) as error:
        problem = f"{error}; delete the directory and run the unlabelled stage again"
        raise DataError(f"{directory} holds no readable unlabelled text", [problem]) from error
    if "text_pair" in columns:
        return list(zip(texts, columns["text_pair"], strict=True))
    return texts


def _tables(
    settings: DataSettings, base_directory: Path, cache_directory: Path, findings: Findings
) -> list[Table]:
    columns = columns_of(settings, UNLABELLED_SPLIT)
    tables = [
        read_table(file, UNLABELLED_SPLIT, columns, findings)
        for file in unlabelled_files(settings, base_directory)
    ]
    if settings.unlabelled_split is not None:
        tables += read_unlabelled_splits(settings, base_directory, cache_directory, findings)
    return [table for table in tables if table is not None]


def _sift(tables: Sequence[Table], dataset: Dataset) -> tuple[list[Key], list[Sifted]]:
    """The rows worth keeping, each once, and the counts of each table."""
    train = {_key(row) for row in dataset.train.inputs()}
    held_out = {
        _normal(_key(row)): f"in_{split.name}"
        for split in reversed(dataset.splits()[1:])
        for row in split.inputs()
    }
    kept: dict[Key, None] = {}
    sources = []
    for table in tables:
        dropped = Counter(dict.fromkeys(REASONS, 0))
        for row in zip(*table.texts, strict=True):
            key = _filled(row)
            if key is None:
                dropped["empty"] += 1
            elif (reason := held_out.get(_normal(key))) is not None:
                dropped[reason] += 1
            elif key in train:
                dropped["in_train"] += 1
            elif key in kept:
                dropped["repeated"] += 1
            else:
                kept[key] = None
        sources.append(Sifted(table.source, len(table), dict(dropped)))
    return list(kept), sources


def _key(row: str | tuple[str, str]) -> Key:
    return (row,) if isinstance(row, str) else row


def _filled(row: tuple[str | None, ...]) -> Key | None:
    """The row, or None when one of its texts is null or nothing but blanks."""
    for text in row:
        if text is None or not text.strip():
            return None
    return row  # type: ignore[return-value]  # no None is left


def _normal(key: Key) -> Key:
    """The texts without regard to case and blanks."""
    return tuple(" ".join(text.split()).casefold() for text in key)


def _draw(rows: Sequence[Key], limit: int, seed: int) -> list[Key]:
    """The rows whose hash with the seed is smallest, in their old order."""

    def rank(position: int) -> bytes:
        return hashlib.sha256(f"{seed}\0{rows[position]!r}".encode()).digest()

    drawn = heapq.nsmallest(limit, range(len(rows)), key=rank)
    return [rows[position] for position in sorted(drawn)]
