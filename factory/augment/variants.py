"""Variants of some training rows: drawn in the recipe's mode, told apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from factory.augment.candidates import Proposer
from factory.augment.context_free import CachedNeighbours
from factory.augment.corrected import corrected_variants
from factory.augment.masked_lm import WordGuesser
from factory.augment.paper import PaperSources, paper_variants
from factory.augment.rendering import Drawn, Variant
from factory.augment.source_rows import SourceRows, split_rows
from factory.augment.words import WordSplitter
from factory.data.dataset import Split
from factory.recipe.augment import AugmentSettings

if TYPE_CHECKING:
    from factory.augment.tools import AugmentTools

# Copies by training rows, after the reference: 30 for CoLA, MRPC, RTE and STS-B (up to 8,551
# rows), 20 for SST-2 and QNLI (up to 104,743), which is also the paper's N_a, and 10 for QQP and
# MNLI (from 363,846).
COPIES_BY_ROWS = ((10_000, 30), (200_000, 20))
COPIES_OF_MORE_ROWS = 10


@dataclass(frozen=True, slots=True)
class Made:
    """The variants of some rows, and what happened to the others.

    Args:
        variants: by row, then by copy; of one row no two are the same.
        counts: `drawn` (copies of rows), of these `unchanged` and `duplicate` (dropped),
            `words` (replaceable words in all copies), and `from:SOURCE` (words replaced).
    """

    variants: list[Variant]
    counts: Counter[str]


def copies_for(rows: int, settings: AugmentSettings) -> int:
    """How many variants are drawn of each of `rows` training rows."""
    if settings.copies is not None:
        return settings.copies
    for most_rows, copies in COPIES_BY_ROWS:
        if rows <= most_rows:
            return copies
    return COPIES_OF_MORE_ROWS


class VariantMaker:
    """Makes the variants of any rows of train, the same ones in whatever order it is asked."""

    def __init__(
        self,
        train: Split,
        settings: AugmentSettings,
        tools: AugmentTools,
    ) -> None:
        """Prepare the sources; arguments as for `stage.augment`."""
        self._train = train
        self._settings = settings
        self._tools = tools
        mlm = tools.mlm
        self._splitter = WordSplitter(tools.tokenizer if mlm is None else mlm.tokenizer)
        self.copies = copies_for(len(train), settings)
        self._paper: PaperSources | None = None
        if settings.mode == "paper":
            assert mlm is not None, 'augment.mode = "paper" needs an mlm'
            guesser = WordGuesser(mlm, tools.max_length, "all")
            named = {
                name: CachedNeighbours(known, settings.candidates)
                for name, known in tools.neighbours.items()
            }
            self._paper = PaperSources(guesser, self._splitter, named, settings)
        else:
            self._proposer = Proposer(settings, tools.max_length, mlm, tools.neighbours)

    def split(self, rows: range) -> SourceRows:
        """The words of some rows."""
        return split_rows(
            self._train, rows, self._splitter, self._tools.tokenizer, self._tools.max_length
        )

    def make(self, rows: range) -> Made:
        """The variants of some rows."""
        source = self.split(rows)
        drawn = self._draw(source)
        variants = list(_distinct(drawn.variants, source))
        counts = Counter(
            drawn=self.copies * len(rows),
            words=drawn.words,
            unchanged=self.copies * len(rows) - len(drawn.variants),
            duplicate=len(drawn.variants) - len(variants),
        )
        counts.update({f"from:{name}": count for name, count in drawn.replaced.items()})
        return Made(variants, counts)

    def _draw(self, source: SourceRows) -> Drawn:
        if self._paper is not None:
            return paper_variants(source, self._settings, self.copies, self._paper)
        return corrected_variants(source, self._settings, self.copies, self._proposer)


def _distinct(variants: Iterable[Variant], source: SourceRows) -> Iterable[Variant]:
    """Variants that are neither their row nor an earlier variant of it."""
    row, seen = -1, set[tuple[str, ...]]()
    for variant in variants:
        if variant.source_row != row:
            row = variant.source_row
            seen = {tuple(side[row - source.rows.start].text for side in source.sides)}
        if variant.texts not in seen:
            seen.add(variant.texts)
            yield variant
