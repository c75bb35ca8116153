"""Training rows split into words, the words each copy replaces, and the examples that result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.augment import keyed_rng
from factory.augment.words import SplitText, Word, WordSplitter, visible_ends
from factory.data.dataset import Split
from factory.recipe.augment import AugmentSettings

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class SourceRows:
    """Some training rows. Their replaceable words are numbered by row, then side, then place.

    Args:
        rows: positions of the rows in train.
        sides: the texts of all rows; for pairs also the second texts.

    Shapes:
        row, side, place: (words,) where each word is; `row` counts from 0 within these rows
        segment: (words,) number of the word's text among the texts that have replaceable words
        segment_starts: (segments,) the first word of each such text
    """

    rows: range
    sides: list[list[SplitText]]
    row: NDArray[np.int64]
    side: NDArray[np.int64]
    place: NDArray[np.int64]
    segment: NDArray[np.int64]
    segment_starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.row)

    @property
    def positions(self) -> NDArray[np.int64]:
        """Position in train of each word's row: (words,)."""
        return self.row + self.rows.start

    def text(self, word: int) -> SplitText:
        """The text that contains a word."""
        return self.sides[int(self.side[word])][int(self.row[word])]

    def word(self, word: int) -> Word:
        """One word."""
        return self.text(word).words[int(self.place[word])]

    def surface(self, word: int) -> str:
        """The characters of one word."""
        return self.text(word).surface(int(self.place[word]))

    def by_text(self, words: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Some words, in increasing order, split by the text they are in."""
        cuts = np.flatnonzero(np.diff(self.segment[words])) + 1
        return [of_text for of_text in np.split(words, cuts) if len(of_text)]


@dataclass(frozen=True, slots=True)
class ReplacementMask:
    """The words that each copy replaces, drawn before any candidate is computed.

    Shapes:
        active: (copies, segments) whether the copy may change that text
        draws: (copies, words) p of algorithm 1
        replace: (copies, words) whether the word is replaced: p is low enough and the text active
        choices: (copies, words) random bits that choose among the candidates
    """

    active: NDArray[np.bool_]
    draws: NDArray[np.float64]
    replace: NDArray[np.bool_]
    choices: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class AugmentedExample:
    """A training row with some words replaced.

    Args:
        source_row: position in train of the row it was made from.
        copy: number of the copy of that row, from 0.
        texts: its text, or the two texts of a pair.
        changed: for each text the ranges [start, end) of characters that are new.
    """

    source_row: int
    copy: int
    texts: tuple[str, ...]
    changed: tuple[tuple[Range, ...], ...]


@dataclass(frozen=True, slots=True)
class Drawn:
    """The examples drawn from some rows.

    Args:
        examples: by row, then by copy; copies without a change are left out.
        replaced: number of replaced words by the source of the new word.
    """

    examples: list[AugmentedExample]
    replaced: Counter[str]


def split_rows(
    train: Split, rows: range, splitter: WordSplitter, tokenizer: Any, max_length: int
) -> SourceRows:
    """Split rows into words; only words that a student sees within `max_length` are replaceable."""
    columns = [train.texts[rows.start : rows.stop]]
    if train.text_pairs is not None:
        columns.append(train.text_pairs[rows.start : rows.stop])
    ends = visible_ends(tokenizer, columns, max_length)
    sides = [splitter.split(column) for column in columns]
    found = [
        (row, side, place)
        for row in range(len(rows))
        for side in range(len(columns))
        for place, word in enumerate(sides[side][row].words)
        if word.replaceable and word.end <= ends[side][row]
    ]
    row, side, place = np.array(found, dtype=np.int64).reshape(-1, 3).T
    is_first = np.diff(row * len(columns) + side, prepend=-1) != 0
    return SourceRows(
        rows, sides, row, side, place, np.cumsum(is_first) - 1, np.flatnonzero(is_first)
    )


def draw_replacements(
    source: SourceRows, settings: AugmentSettings, copies: int
) -> ReplacementMask:
    """Draw p for every word of every copy, and the side of a pair that the copy changes.

    Every draw is keyed by seed, row, copy and word, so rows may be processed in any order.
    """
    places = (source.positions, np.arange(copies)[:, None], source.side, source.place)
    active = _active(source, settings, copies)
    draws = keyed_rng.uniform(keyed_rng.random_bits(settings.seed, keyed_rng.REPLACE, *places))
    replace = (draws <= settings.replace_probability) & active[:, source.segment]
    choices = keyed_rng.random_bits(settings.seed, keyed_rng.CHOICE, *places)
    return ReplacementMask(active, draws, replace, choices)


def _active(source: SourceRows, settings: AugmentSettings, copies: int) -> NDArray[np.bool_]:
    """Which texts each copy may change: (copies, segments)."""
    row, side = source.row[source.segment_starts], source.side[source.segment_starts]
    shape = (copies, len(row))
    if len(source.sides) == 1 or settings.sides == "both":
        return np.ones(shape, dtype=np.bool_)
    if settings.sides != "any":
        return np.broadcast_to(side == ("first", "second").index(settings.sides), shape)
    positions, copy = row + source.rows.start, np.arange(copies)[:, None]
    drawn = keyed_rng.random_bits(settings.seed, keyed_rng.SIDE, positions, copy) % np.uint64(3)
    # a row with replaceable words on one side only has that side changed
    texts_with_words = np.bincount(row, minlength=len(source.rows))
    alone = texts_with_words[row] == 1
    active: NDArray[np.bool_] = (drawn == 2) | (drawn == side.astype(np.uint64)) | alone
    return active


def assemble(source: SourceRows, new: NDArray[np.object_]) -> list[AugmentedExample]:
    """Put the new words into the texts of their rows.

    Args:
        new: the new word or None, (copies, words).
    """
    copies, words = np.nonzero(new)
    order = np.lexsort((words, copies, source.row[words]))
    copies, words = copies[order], words[order]
    columns = [column[words].tolist() for column in (source.row, source.side, source.place)]
    replacements = zip(copies.tolist(), *columns, new[copies, words].tolist(), strict=True)
    examples = []
    for (copy, row), group in groupby(replacements, key=itemgetter(0, 1)):
        by_side: list[list[tuple[int, str]]] = [[] for _ in source.sides]
        for _, _, side, place, text in group:
            by_side[side].append((place, text))
        splits = [side[row] for side in source.sides]
        changes = [replace_words(*both) for both in zip(splits, by_side, strict=True)]
        texts, changed = zip(*changes, strict=True)
        examples.append(AugmentedExample(source.rows.start + row, copy, texts, changed))
    return examples


def replace_words(
    split: SplitText, replacements: Sequence[tuple[int, str]]
) -> tuple[str, tuple[Range, ...]]:
    """Replace words of a text; all other characters stay.

    Args:
        replacements: places of words, increasing, each with its new word.

    Returns:
        The new text and the ranges of the new words in it.
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
