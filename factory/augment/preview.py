"""Training rows before and after augmentation, printed for a person to read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from factory.augment.proposers import Proposers
from factory.augment.rows import Range
from factory.augment.run import ExampleMaker
from factory.augment.words import SplitText
from factory.data.dataset import Split
from factory.data.messages import count
from factory.recipe.augment import AugmentSettings


def preview_lines(
    train: Split,
    settings: AugmentSettings,
    proposers: Proposers,
    most_rows: int,
    *,
    colours: bool = False,
) -> list[str]:
    """Some rows, drawn by the seed, each with its first example, exactly as a run makes it.

    Nothing is written. Duplicates across rows and the limit per class are not considered.

    Args:
        most_rows: number of rows; all if there are fewer.
        colours: mark changed words in colour as well as in brackets.

    Returns:
        Per row a headline, then for each of its texts a line with - (before) and with + (after).

    Raises:
        RecipeError: as `augment`.
    """
    maker = ExampleMaker(train, settings, proposers)
    random = np.random.default_rng(settings.seed)
    rows = random.choice(len(train), size=min(most_rows, len(train)), replace=False)
    lines = []
    for row in sorted(rows.tolist()):
        one = range(row, row + 1)
        originals = [side[0] for side in maker.split(one).sides]
        examples, _ = maker.make(one)
        if not examples:
            lines.append(f"row {row}: no augmented example")
            lines += [f"  - {original.text}" for original in originals]
            continue
        first = examples[0]
        lines.append(f"row {row}: {count(len(examples), 'augmented example')}, the first:")
        for original, text, ranges in zip(originals, first.texts, first.changed, strict=True):
            before = _original_ranges(original, ranges)
            lines.append(f"  - {_marked(original.text, before, 'red' if colours else None)}")
            lines.append(f"  + {_marked(text, ranges, 'green' if colours else None)}")
    return lines


def _original_ranges(split: SplitText, ranges: Sequence[Range]) -> list[Range]:
    """The ranges of the replaced words; the texts between them are equal."""
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
