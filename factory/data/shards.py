"""A tokenized corpus as packed rows on disk: written in shards, resumed, and mapped into memory.

Documents are joined with a separator between them and cut into rows [CLS] tokens [SEP]; only the
last row is padded.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.models.encoding import EncodedRows, PaddedRows
from factory.runtime.progress import bar
from factory.store import atomic_write, read_json, write_json

INDEX_NAME = "index.json"
SPECIAL_TOKENS = 2  # [CLS] and [SEP] of a row
# A shard is written after this many tokens; after a kill, at most this many are tokenized again.
SHARD_TOKENS = 2**22
# Pieces tokenized together, on all cores; a batch ends at the first limit reached.
BATCH_PIECES = 1024
BATCH_CHARACTERS = 2**20

Tokenize = Callable[[Sequence[str]], Sequence[Sequence[int]]]


@dataclass(frozen=True, slots=True)
class Piece:
    """A document, or one line of a longer one; `starts`: it begins a new document."""

    text: str
    starts: bool


@dataclass(frozen=True, slots=True)
class RowLayout:
    """The format of a packed row.

    Args:
        length: tokens per row, [CLS] and [SEP] included.
        dtype: uint16 if the vocabulary fits, else uint32.
    """

    length: int
    start_id: int
    separator_id: int
    pad_id: int
    dtype: str


@dataclass(slots=True)
class TokenStream:
    """The corpus as one sequence of tokens; holds the tokens that are not yet cut into rows.

    Args:
        separator_id: inserted between two documents, never before the first and never twice.
        limit: maximum number of tokens, separators included; None: no limit.
        documents: number of documents with at least one token so far.
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
        """Append the tokens of a piece; `starts`: the piece begins a new document."""
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

    def full_rows(self, layout: RowLayout) -> NDArray[np.unsignedinteger]:
        """Take all full rows out of the buffer: (rows, length)."""
        content = layout.length - SPECIAL_TOKENS
        count = len(self.buffer) // content
        taken = np.array(self.buffer[: count * content], dtype=np.uint32)
        del self.buffer[: count * content]
        rows = np.empty((count, layout.length), dtype=layout.dtype)
        rows[:, 0] = layout.start_id
        rows[:, 1:-1] = taken.reshape(count, content)
        rows[:, -1] = layout.separator_id
        return rows

    def last_row(self, layout: RowLayout) -> NDArray[np.unsignedinteger]:
        """Take the rest of the buffer as one padded row: (1, length)."""
        end = 1 + len(self.buffer)
        row = np.full((1, layout.length), layout.pad_id, dtype=layout.dtype)
        row[0, 0] = layout.start_id
        row[0, 1:end] = self.buffer
        row[0, end] = layout.separator_id
        del self.buffer[:]
        return row


def write_shards(
    directory: Path,
    pieces: Iterable[Piece],
    tokenize: Tokenize,
    layout: RowLayout,
    max_tokens: int | None,
) -> dict[str, Any]:
    """Tokenize and pack all pieces into `directory`, resuming an interrupted run.

    The index is written after each shard and records how far into the corpus the shards reach, so
    the files have the same bytes however often the run was interrupted.

    Args:
        pieces: the whole corpus from the beginning; pieces already in the shards are skipped.

    Returns:
        The finished index.
    """
    index: dict[str, Any] = {
        "length": layout.length,
        "pad_id": layout.pad_id,
        "shards": [],
        "last_row_tokens": layout.length,
        "pieces": 0,
        "tokens": 0,
        "documents": 0,
        "between": True,
        "buffer": [],
    }
    if (directory / INDEX_NAME).is_file():
        index = read_json(directory / INDEX_NAME)
    stream = TokenStream(
        layout.separator_id,
        max_tokens,
        index["tokens"],
        index["documents"],
        index["between"],
        array("I", index["buffer"]),
    )
    todo = islice(iter(pieces), index["pieces"], None)
    with bar("tokenizing", max_tokens, "token", initial=stream.tokens) as progress:
        for batch in _batches(todo):
            if stream.full:
                break
            before = stream.tokens
            ids_of_batch = tokenize([piece.text for piece in batch])
            for piece, ids in zip(batch, ids_of_batch, strict=True):
                stream.add(ids, piece.starts)
            index["pieces"] += len(batch)
            progress.advance(stream.tokens - before)
            if len(stream.buffer) >= SHARD_TOKENS:
                _publish(directory, index, stream, stream.full_rows(layout))
    rows = stream.full_rows(layout)
    if stream.buffer:
        index["last_row_tokens"] = len(stream.buffer) + SPECIAL_TOKENS
        rows = np.concatenate([rows, stream.last_row(layout)])
    if len(rows):
        _publish(directory, index, stream, rows)
    return index


def _batches(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    batch: list[Piece] = []
    characters = 0
    for piece in pieces:
        batch.append(piece)
        characters += len(piece.text)
        if len(batch) >= BATCH_PIECES or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _publish(
    directory: Path,
    index: dict[str, Any],
    stream: TokenStream,
    rows: NDArray[np.unsignedinteger],
) -> None:
    """Write a shard atomically, then the index that includes it."""
    file = _shard_file(directory, len(index["shards"]))
    with atomic_write(file) as temporary, temporary.open("wb") as handle:
        np.save(handle, rows, allow_pickle=False)
    index["shards"].append(len(rows))
    index["tokens"], index["documents"] = stream.tokens, stream.documents
    index["between"], index["buffer"] = stream.between, stream.buffer.tolist()
    write_json(directory / INDEX_NAME, index)


def _shard_file(directory: Path, number: int) -> Path:
    return directory / f"shard-{number:05d}.npy"


@dataclass(frozen=True, slots=True)
class PackedRows:
    """The rows of a finished corpus in memory-mapped files; only the rows of a batch are copied.

    Shapes:
        shards: one mapped (rows, length) array per file
        first_rows: (files,) number of each file's first row
    """

    shards: tuple[NDArray[np.unsignedinteger], ...]
    first_rows: NDArray[np.int64]
    last_row_tokens: int
    pad_id: int

    def __len__(self) -> int:
        return sum(len(shard) for shard in self.shards)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens per row without padding: (rows,)."""
        lengths = np.full(len(self), self.shards[0].shape[1], dtype=np.int64)
        lengths[-1] = self.last_row_tokens
        return lengths

    def padded(self, positions: NDArray[np.int64]) -> PaddedRows:
        """The rows at some positions with their mask, as wide as the longest of them."""
        last = len(self) - 1
        width = self.shards[0].shape[1]
        longest = self.last_row_tokens if (positions == last).all() else width
        ids = np.empty((len(positions), longest), dtype=np.int64)
        mask = np.ones_like(ids)
        files = np.searchsorted(self.first_rows, positions, side="right") - 1
        for line, (file, position) in enumerate(zip(files, positions, strict=True)):
            ids[line] = self.shards[file][position - self.first_rows[file], :longest]
            if position == last:
                mask[line, self.last_row_tokens :] = 0
        return PaddedRows(ids, np.zeros_like(ids), mask)

    def sample(self, count: int) -> EncodedRows:
        """At most `count` rows, evenly spread over the corpus, in memory."""
        wanted = min(count, len(self))
        positions = np.linspace(0, len(self) - 1, wanted).round().astype(np.int64)
        chosen = self.padded(positions)
        ids = [
            row[: mask.sum()].astype(np.int32)
            for row, mask in zip(chosen.input_ids, chosen.attention_mask, strict=True)
        ]
        return EncodedRows(ids, [np.zeros_like(row) for row in ids], self.pad_id)


def open_rows(directory: Path) -> PackedRows:
    """Map the shards of a finished corpus into memory."""
    index = read_json(directory / INDEX_NAME)
    shards = tuple(
        np.load(_shard_file(directory, number), mmap_mode="r", allow_pickle=False)
        for number in range(len(index["shards"]))
    )
    first_rows = np.cumsum([0, *index["shards"][:-1]], dtype=np.int64)
    return PackedRows(shards, first_rows, index["last_row_tokens"], index["pad_id"])
