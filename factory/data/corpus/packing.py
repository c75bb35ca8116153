"""Documents end to end, cut into full rows: [CLS] tokens [SEP], nothing padded but the last row."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

SPECIAL_TOKENS = 2  # [CLS] and [SEP] of a row


@dataclass(frozen=True, slots=True)
class RowLayout:
    """What a packed row looks like.

    Args:
        length: tokens per row, [CLS] and [SEP] included.
        dtype: uint16 where the vocabulary fits into it, else uint32.
    """

    length: int
    start_id: int
    separator_id: int
    pad_id: int
    dtype: str

    @property
    def content(self) -> int:
        """Tokens of the corpus in a full row."""
        return self.length - SPECIAL_TOKENS


@dataclass(slots=True)
class TokenStream:
    """The corpus as one sequence of tokens, a separator between documents; holds what is not cut.

    Args:
        separator_id: stands between two documents, never before the first or twice.
        limit: the most tokens to take, separators included; None takes all.
        tokens: taken so far.
        documents: with at least one token, so far.
        between: whether the next token begins a document.
        buffer: tokens not yet cut into rows.
    """

    separator_id: int
    limit: int | None
    tokens: int = 0
    documents: int = 0
    between: bool = True
    buffer: array[int] = field(default_factory=lambda: array("I"))

    @property
    def full(self) -> bool:
        """Whether the limit is reached."""
        return self.limit is not None and self.tokens >= self.limit

    def add(self, ids: Sequence[int], starts: bool) -> None:
        """Append a piece; `starts` says whether it begins a new document."""
        self.between = self.between or starts
        if not ids or self.full:
            return
        before = len(self.buffer)
        if self.between:
            if self.tokens:
                self.buffer.append(self.separator_id)
            self.documents += 1
            self.between = False
        self.buffer.extend(ids)
        self.tokens += len(self.buffer) - before
        if self.limit is not None and self.tokens > self.limit:
            del self.buffer[self.limit - self.tokens :]
            self.tokens = self.limit

    def cut(self, content: int) -> NDArray[np.uint32]:
        """Take all full rows out of the buffer: (rows, content)."""
        rows = len(self.buffer) // content
        taken = np.array(self.buffer[: rows * content], dtype=np.uint32)
        del self.buffer[: rows * content]
        return taken.reshape(rows, content)


def full_rows(content: NDArray[np.uint32], layout: RowLayout) -> NDArray[np.unsignedinteger]:
    """Rows of exactly `length` tokens: (rows, length)."""
    rows = np.empty((len(content), layout.length), dtype=layout.dtype)
    rows[:, 0] = layout.start_id
    rows[:, 1:-1] = content
    rows[:, -1] = layout.separator_id
    return rows


def last_row(rest: Sequence[int], layout: RowLayout) -> NDArray[np.unsignedinteger]:
    """What is left at the end as one padded row: (1, length)."""
    row = np.full((1, layout.length), layout.pad_id, dtype=layout.dtype)
    row[0, 0] = layout.start_id
    row[0, 1 : 1 + len(rest)] = rest
    row[0, 1 + len(rest)] = layout.separator_id
    return row
