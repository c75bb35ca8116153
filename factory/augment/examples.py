"""The augmented examples of some training rows, in the recipe's mode and without duplicates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from factory.augment.algorithm_1 import Algorithm1
from factory.augment.contextual import ContextualMode
from factory.augment.proposers import Proposers
from factory.augment.rows import AugmentedExample, SourceRows, split_rows
from factory.augment.words import WordSplitter
from factory.data.dataset import Split
from factory.recipe.augment import AugmentSettings

# Copies by number of training rows, after the reference: 30 for CoLA, MRPC, RTE and STS-B (up to
# 8,551 rows), 20 for SST-2 and QNLI (up to 104,743; also the paper's N_a), and 10 for QQP and MNLI
# (from 363,846).
COPIES_BY_ROWS = ((10_000, 30), (200_000, 20))
COPIES_OF_MORE_ROWS = 10


@dataclass(frozen=True, slots=True)
class RowExamples:
    """The examples of some rows, and why there are not more.

    Args:
        examples: by row, then by copy; no two examples of a row are equal.
        counts: `drawn` (copies of rows); of these `unchanged` and `duplicate`, which are dropped;
            `words` (replaceable words in all copies); `from:SOURCE` (words replaced).
    """

    examples: list[AugmentedExample]
    counts: Counter[str]


def copies_for(rows: int, settings: AugmentSettings) -> int:
    """Number of copies drawn of each of `rows` training rows."""
    if settings.copies is not None:
        return settings.copies
    for most_rows, copies in COPIES_BY_ROWS:
        if rows <= most_rows:
            return copies
    return COPIES_OF_MORE_ROWS


class ExampleMaker:
    """Makes the examples of any training rows; the order of the calls does not matter."""

    def __init__(self, train: Split, settings: AugmentSettings, proposers: Proposers) -> None:
        self._train = train
        self._proposers = proposers
        tokenizer = proposers.tokenizer if proposers.mlm is None else proposers.mlm.tokenizer
        self._splitter = WordSplitter(tokenizer)
        self._copies = copies_for(len(train), settings)
        self._mode: Algorithm1 | ContextualMode
        if settings.mode == "paper":
            self._mode = Algorithm1(settings, proposers, self._splitter)
        else:
            self._mode = ContextualMode(settings, proposers)

    def split(self, rows: range) -> SourceRows:
        """The words of some rows."""
        tokenizer, max_length = self._proposers.tokenizer, self._proposers.max_length
        return split_rows(self._train, rows, self._splitter, tokenizer, max_length)

    def make(self, rows: range) -> RowExamples:
        """The examples of some rows."""
        source = self.split(rows)
        drawn = self._mode.draw(source, self._copies)
        examples = list(_distinct(drawn.examples, source))
        copies = self._copies * len(rows)
        counts = Counter(
            drawn=copies,
            words=drawn.words,
            unchanged=copies - len(drawn.examples),
            duplicate=len(drawn.examples) - len(examples),
        )
        counts.update({f"from:{name}": count for name, count in drawn.replaced.items()})
        return RowExamples(examples, counts)


def _distinct(
    examples: Iterable[AugmentedExample], source: SourceRows
) -> Iterator[AugmentedExample]:
    """Examples that differ from their row and from earlier examples of it."""
    row, seen = -1, set[tuple[str, ...]]()
    for example in examples:
        if example.source_row != row:
            row = example.source_row
            seen = {tuple(side[row - source.rows.start].text for side in source.sides)}
        if example.texts not in seen:
            seen.add(example.texts)
            yield example
