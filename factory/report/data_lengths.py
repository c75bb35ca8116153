"""How long the inputs are in tokens, as the model reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from factory.data.dataset import Split

ROWS_COUNTED = 20_000
BARS = 24


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens per row of one split, special ones included, before anything is cut.

    Args:
        counted: how many rows were looked at, evenly spread over the split.
        cut: share of them longer than the recipe's max_length.
        shares: share of the rows in each bar of `edges`, the last holding all longer ones.
    """

    split: str
    rows: int
    counted: int
    median: int
    p95: int
    longest: int
    cut: float
    edges: list[float]
    shares: list[float]


def token_lengths(splits: list[Split], tokenizer_file: Path, max_length: int) -> list[Lengths]:
    """Lengths of each split, all over the same bars."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    counts = []
    for split in splits:
        inputs = split.inputs()
        places = np.linspace(0, len(inputs) - 1, min(ROWS_COUNTED, len(inputs))).astype(int)
        encoded = tokenizer.encode_batch_fast([inputs[place] for place in places])
        counts.append(np.array([len(one.ids) for one in encoded]))
    edges = _edges(max(int(np.quantile(count, 0.995)) for count in counts), max_length)
    return [
        Lengths(
            split=split.name,
            rows=len(split),
            counted=len(count),
            median=int(np.median(count)),
            p95=int(np.quantile(count, 0.95)),
            longest=int(count.max()),
            cut=float((count > max_length).mean()),
            edges=edges,
            shares=(np.histogram(np.minimum(count, edges[-1]), edges)[0] / len(count)).tolist(),
        )
        for split, count in zip(splits, counts, strict=True)
    ]


def _edges(longest: int, max_length: int) -> list[float]:
    """Bars of whole tokens up to what nearly all rows have, and at least to the limit."""
    top = min(max(longest, 8), 4 * max_length)
    width = max(1, -(-top // BARS))
    return [float(width * number) for number in range(top // width + 2)]
