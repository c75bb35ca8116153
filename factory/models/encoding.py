"""Encode texts as token ids, and collate them into padded batches in a seeded order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

# Batches are cut from a pool of this many batches, sorted by length: there is little padding, and
# the rows of a batch still change every epoch.
POOL_BATCHES = 32


class Rows(Protocol):
    """Rows of token ids to make batches of, in memory or on disk."""

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens per row: (rows,)."""
        ...

    def padded(self, positions: NDArray[np.int64]) -> PaddedRows:
        """The chosen rows, padded to the longest among them."""
        ...


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Token ids of many inputs, not padded.

    Shapes:
        input_ids, token_type_ids: one int32 array (tokens,) per row
    """

    input_ids: list[NDArray[np.int32]]
    token_type_ids: list[NDArray[np.int32]]
    pad_id: int

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens per row: (rows,)."""
        return np.array([len(ids) for ids in self.input_ids], dtype=np.int64)

    def padded(self, positions: NDArray[np.int64]) -> PaddedRows:
        """The chosen rows, padded to the longest among them."""
        longest = max(len(self.input_ids[position]) for position in positions)
        shape = (len(positions), longest)
        padded = PaddedRows(
            np.full(shape, self.pad_id, dtype=np.int64),
            np.zeros(shape, dtype=np.int64),
            np.zeros(shape, dtype=np.int64),
        )
        for line, position in enumerate(positions):
            length = len(self.input_ids[position])
            padded.input_ids[line, :length] = self.input_ids[position]
            padded.token_type_ids[line, :length] = self.token_type_ids[position]
            padded.attention_mask[line, :length] = 1
        return padded


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded rows on a device.

    Shapes:
        input_ids, token_type_ids, attention_mask: (batch, longest row), int64
        rows: (batch,) positions of the rows in their `Rows`
    """

    input_ids: torch.Tensor
    token_type_ids: torch.Tensor
    attention_mask: torch.Tensor
    rows: torch.Tensor


def encode_inputs(
    tokenizer: Any,
    inputs: Sequence[str] | Sequence[tuple[str, str]],
    max_length: int,
) -> EncodedRows:
    """Tokenize texts or pairs with special tokens, truncated to `max_length` tokens."""
    if not inputs:
        return EncodedRows([], [], tokenizer.pad_token_id)
    single = isinstance(inputs[0], str)
    columns = [list(inputs)] if single else [list(side) for side in zip(*inputs, strict=True)]
    encoded = tokenizer(
        *columns,
        truncation=True,
        max_length=max_length,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=True,
    )
    return EncodedRows(
        [np.array(ids, dtype=np.int32) for ids in encoded["input_ids"]],
        [np.array(ids, dtype=np.int32) for ids in encoded["token_type_ids"]],
        tokenizer.pad_token_id,
    )


def select_rows(rows: EncodedRows, positions: NDArray[np.int64]) -> EncodedRows:
    """The rows at the given positions, in that order."""
    return EncodedRows(
        [rows.input_ids[position] for position in positions],
        [rows.token_type_ids[position] for position in positions],
        rows.pad_id,
    )


def save_tokenizer(tokenizer: Any, directory: Path) -> None:
    """Save a fast tokenizer without the truncation and padding that earlier calls set in it."""
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.save_pretrained(directory)


@dataclass(frozen=True, slots=True)
class PaddedRows:
    """Rows padded to the longest among them, as numpy.

    Shapes:
        input_ids, token_type_ids, attention_mask: (batch, longest row)
    """

    input_ids: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]


def collate(rows: Rows, positions: NDArray[np.int64], device: str) -> Batch:
    """The chosen rows as padded tensors on a device."""
    import torch

    padded = rows.padded(positions)
    return Batch(
        torch.from_numpy(padded.input_ids).to(device, non_blocking=True),
        torch.from_numpy(padded.token_type_ids).to(device, non_blocking=True),
        torch.from_numpy(padded.attention_mask).to(device, non_blocking=True),
        torch.from_numpy(positions).to(device, non_blocking=True),
    )


def epoch_order(
    lengths: NDArray[np.int64], batch_size: int, seed: int, epoch: int
) -> list[NDArray[np.int64]]:
    """Row positions of each batch of one epoch: shuffled, grouped by length, shuffled again.

    Every row occurs exactly once; one batch may be smaller. The same seed and epoch give the same
    order on every machine, so that an interrupted epoch can be resumed.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    pool_rows = batch_size * POOL_BATCHES
    batches: list[NDArray[np.int64]] = []
    for start in range(0, len(order), pool_rows):
        pool = order[start : start + pool_rows]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[cut : cut + batch_size] for cut in range(0, len(pool), batch_size)]
    return [batches[position] for position in random.permutation(len(batches))]


def sorted_batches(lengths: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Row positions cut into batches from the shortest row to the longest, for inference."""
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
