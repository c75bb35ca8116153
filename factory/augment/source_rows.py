"""The training rows of one part, split into words, and which words each copy asks to replace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.augment import draws
from factory.augment.words import SplitText, Word, WordSplitter, visible_ends
from factory.data.dataset import Split
from factory.recipe.augment import AugmentSettings


@dataclass(frozen=True, slots=True)
class SourceRows:
    """Some training rows; their replaceable words stand in one order: row, side, place.

    Args:
        rows: numbers of the rows in train.
        sides: the texts of all rows, and then, for pairs, the second texts.

    Shapes:
        row, side, place: (words,) which word it is; `row` counts from 0 in these rows
        segment: (words,) number of the text it is in, counting those with such words
        segment_starts: (segments,) the first word of each
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
    def numbers(self) -> NDArray[np.int64]:
        """Number in train of the row of each word: (words,)."""
        return self.row + self.rows.start

    def text(self, word: int) -> SplitText:
        """The text that a word is in."""
        return self.sides[int(self.side[word])][int(self.row[word])]

    def word(self, word: int) -> Word:
        """One word."""
        return self.text(word).words[int(self.place[word])]

    def surface(self, word: int) -> str:
        """The characters of one word."""
        return self.text(word).surface(int(self.place[word]))


@dataclass(frozen=True, slots=True)
class Wishes:
    """What each copy asks for, before anyone is asked for candidates.

    Shapes:
        active: (copies, segments) whether the copy may change that text
        draws: (copies, words) p of algorithm 1
        replace: (copies, words) whether p lets the word be replaced, in an active text
        choices: (copies, words) keys that choose among the candidates
    """

    active: NDArray[np.bool_]
    draws: NDArray[np.float64]
    replace: NDArray[np.bool_]
    choices: NDArray[np.uint64]


def split_rows(
    train: Split, rows: range, splitter: WordSplitter, tokenizer: Any, max_length: int
) -> SourceRows:
    """Split rows into words; only those a student sees within `max_length` are replaceable."""
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
    texts = row * len(columns) + side
    begins = np.flatnonzero(np.diff(texts, prepend=-1))
    segment = np.cumsum(np.diff(texts, prepend=-1) != 0) - 1
    return SourceRows(rows, sides, row, side, place, segment, begins)


def draw_wishes(source: SourceRows, settings: AugmentSettings, copies: int) -> Wishes:
    """Draw p for every word of every copy, and the side of a pair that the copy changes.

    Every draw is keyed by seed, row number, copy and word, so rows may be worked on in any order.
    """
    copy = np.arange(copies)[:, None]
    places = (source.numbers, copy, source.side, source.place)
    active = _active(source, settings, copies)
    values = draws.uniform(draws.keys(settings.seed, draws.REPLACE, *places))
    replace = (values <= settings.replace_probability) & active[:, source.segment]
    choices = draws.keys(settings.seed, draws.CHOICE, *places)
    return Wishes(active, values, replace, choices)


def _active(source: SourceRows, settings: AugmentSettings, copies: int) -> NDArray[np.bool_]:
    """Which texts each copy changes: (copies, segments)."""
    row, side = source.row[source.segment_starts], source.side[source.segment_starts]
    shape = (copies, len(row))
    if len(source.sides) == 1 or settings.sides == "both":
        return np.ones(shape, dtype=np.bool_)
    if settings.sides != "any":
        return np.broadcast_to(side == ("first", "second").index(settings.sides), shape)
    numbers, copy = row + source.rows.start, np.arange(copies)[:, None]
    drawn = draws.keys(settings.seed, draws.SIDE, numbers, copy) % np.uint64(3)
    # a row with words on one side only has that side changed
    texts_with_words = np.bincount(row, minlength=len(source.rows))
    alone = texts_with_words[row] == 1
    active: NDArray[np.bool_] = (drawn == 2) | (drawn == side.astype(np.uint64)) | alone
    return active
