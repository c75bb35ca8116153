"""Rows before and after augmentation, for a person to judge by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from factory.augment.rendering import Range, Variant
from factory.augment.source_rows import SourceRows
from factory.augment.stage import check_task
from factory.augment.variants import VariantMaker
from factory.augment.words import SplitText
from factory.data.dataset import Split
from factory.data.messages import count
from factory.recipe.augment import AugmentSettings

if TYPE_CHECKING:
    from factory.augment.tools import AugmentTools


def preview_lines(
    train: Split,
    settings: AugmentSettings,
    tools: AugmentTools,
    most_rows: int,
    *,
    colours: bool = False,
) -> list[str]:
    """For rows drawn by the seed, the row and its first variant, as the whole run would make it.

    Nothing is written. What only the whole run can see, a variant that another row has too or one
    beyond the cap of its class, is shown.

    Args:
        most_rows: how many rows; all if there are fewer.
        colours: mark changed words in colour as well as in brackets.

    Returns:
        Per row a headline, then for each of its texts a line with - (before) and with + (after).

    Raises:
        RecipeError: as `stage.augment`.
    """
    check_task(settings, train)
    maker = VariantMaker(train, settings, tools)
    random = np.random.default_rng(settings.seed)
    rows = random.choice(len(train), size=min(most_rows, len(train)), replace=False)
    lines = []
    for row in sorted(rows.tolist()):
        one = range(row, row + 1)
        variants = maker.make(one).variants
        lines += _told(maker.split(one), variants, colours)
    return lines


def _told(source: SourceRows, variants: Sequence[Variant], colours: bool) -> list[str]:
    row = source.rows.start
    if not variants:
        texts = [f"  - {side[0].text}" for side in source.sides]
        return [f"row {row}: no variant", *texts]
    first = variants[0]
    lines = [f"row {row}: {count(len(variants), 'variant')}, the first is"]
    for side, text, ranges in zip(source.sides, first.texts, first.changed, strict=True):
        before = _original_ranges(side[0], ranges)
        lines.append(f"  - {_marked(side[0].text, before, 'red' if colours else None)}")
        lines.append(f"  + {_marked(text, ranges, 'green' if colours else None)}")
    return lines


def _original_ranges(split: SplitText, ranges: Sequence[Range]) -> list[Range]:
    """Where the replaced words stood: between them both texts are the same."""
    ends = {word.start: word.end for word in split.words if word.end > word.start}
    found: list[Range] = []
    gained = 0
    for start, end in ranges:
        begin = start - gained
        found.append((begin, ends[begin]))
        gained = end - ends[begin]
    return found


def _marked(text: str, ranges: Sequence[Range], colour: str | None) -> str:
    import click

    parts, reached = [], 0
    for start, end in ranges:
        word = f"[{text[start:end]}]"
        parts += [text[reached:start], click.style(word, fg=colour) if colour else word]
        reached = end
    return "".join([*parts, text[reached:]])
