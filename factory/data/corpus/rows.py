"""Packed rows read back from disk, mapped into memory page by page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from factory.data.corpus.shards import INDEX_NAME, shard_file
from factory.models.encoding import EncodedRows, PaddedRows
from factory.store import read_json


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Rows of full length in mapped files; only the rows of a batch are ever copied.

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
        """Tokens per row, padding not counted: (rows,)."""
        lengths = np.full(len(self), self.shards[0].shape[1], dtype=np.int64)
        lengths[-1] = self.last_row_tokens
        return lengths

    def padded(self, positions: NDArray[np.int64]) -> PaddedRows:
        """The chosen rows with their mask, as wide as the longest among them."""
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
        """At most `count` rows spread evenly over the corpus, in memory."""
        wanted = min(count, len(self))
        positions = np.linspace(0, len(self) - 1, wanted).round().astype(np.int64)
        chosen = self.padded(positions)
        ids = [
            row[: mask.sum()].astype(np.int32)
            for row, mask in zip(chosen.input_ids, chosen.attention_mask, strict=True)
        ]
        return EncodedRows(ids, [np.zeros_like(row) for row in ids], self.pad_id)


def open_rows(directory: Path) -> PackedRows:
    """Map the shards of a finished corpus."""
    index = read_json(directory / INDEX_NAME)
    shards = tuple(
        np.load(shard_file(directory, number), mmap_mode="r", allow_pickle=False)
        for number in range(len(index["shards"]))
    )
    first_rows = np.cumsum([0, *index["shards"][:-1]], dtype=np.int64)
    return PackedRows(shards, first_rows, index["last_row_tokens"], index["pad_id"])
