"""A text with some words replaced: everything else keeps its characters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from factory.augment.source_rows import SourceRows
from factory.augment.words import SplitText

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Variant:
    """A row made from a training row.

    Args:
        source_row: position of that row in train.
        copy: which draw of that row it is, from 0.
        texts: its text, or the two texts of a pair.
        changed: for each text the characters [start, end) of `texts` that are new.
    """

    source_row: int
    copy: int
    texts: tuple[str, ...]
    changed: tuple[tuple[Range, ...], ...]


@dataclass(frozen=True, slots=True)
class Drawn:
    """What some rows gave.

    Args:
        variants: by row, then by copy; a copy without a change is left out.
        words: replaceable words in all copies.
        replaced: how many of them were, by the source of the new word.
    """

    variants: list[Variant]
    words: int
    replaced: Counter[str]


def assemble(source: SourceRows, new: NDArray[np.object_]) -> list[Variant]:
    """Put the new words into the texts of their rows.

    Args:
        new: the new word or None, (copies, words).
    """
    copies, words = np.nonzero(new)
    order = np.lexsort((words, copies, source.row[words]))
    copies, words = copies[order], words[order]
    of_words = (source.row, source.side, source.place)
    columns = [column[words].tolist() for column in of_words]
    replacements = zip(copies.tolist(), *columns, new[copies, words].tolist(), strict=True)
    variants = []
    for (copy, row), group in groupby(replacements, key=itemgetter(0, 1)):
        by_side: list[list[tuple[int, str]]] = [[] for _ in source.sides]
        for _, _, side, place, text in group:
            by_side[side].append((place, text))
        splits = [side[row] for side in source.sides]
        pairs = [replaced(*both) for both in zip(splits, by_side, strict=True)]
        texts, changed = zip(*pairs, strict=True)
        variants.append(Variant(source.rows.start + row, copy, texts, changed))
    return variants


def replaced(
    split: SplitText, replacements: Sequence[tuple[int, str]]
) -> tuple[str, tuple[Range, ...]]:
    """Put words into a text, and say where they stand in it.

    Args:
        replacements: places of words, increasing, and what stands there instead.
    """
    parts: list[str] = []
    ranges: list[Range] = []
    reached = length = 0
    for place, new in replacements:
        word = split.words[place]
        gap = split.text[reached : word.start]
        start = length + len(gap)
        length = start + len(new)
        parts += (gap, new)
        ranges.append((start, length))
        reached = word.end
    parts.append(split.text[reached:])
    return "".join(parts), tuple(ranges)


def in_case_of(word: str, new: str) -> str:
    """A new word with the capitals of the one it replaces: Title, UPPER, or as it is."""
    if len(word) > 1 and word.isupper():
        return new.upper()
    if word[0].isupper() and word[1:] == word[1:].lower():
        return new[0].title() + new[1:]
    return new
