"""Pseudo-random numbers looked up by what they are for, so the order of work changes none."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

# What a draw is for; two draws of one row and copy for different ends are independent.
REPLACE, SIDE, GROUP, CHOICE, CAP = range(5)


def keys(*parts: ArrayLike) -> NDArray[np.uint64]:
    """64 pseudo-random bits for each combination of whole numbers, which broadcast as arrays do.

    SplitMix64's finalizer over the numbers one after the other (Steele, Lea, Flood: Fast
    splittable pseudorandom number generators, 2014).
    """
    state = np.zeros((), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            number = np.asarray(part).astype(np.uint64)
            state = _mixed(_mixed(state) + number + np.uint64(0x9E3779B97F4A7C15))
    return state


def uniform(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Numbers in [0, 1), one for each key."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def chosen(
    bits: NDArray[np.uint64], candidates: NDArray[np.uint64], there: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Which candidate each draw takes: uniform, whatever order the candidates stand in.

    Every candidate gets a priority from the draw and its own key, and the highest wins. Ranks do
    not count, so a model that computes the same K candidates in another order, because the last
    bits of its logits depend on the batch, changes nothing. What remains: a candidate at the edge
    that is in the K with one batch size and out with another.

    Shapes:
        bits: (draws,)
        candidates, there: (draws, K) keys of the candidates, and which of them exist
    """
    priorities = keys(bits[:, None], candidates)
    # 0 is no priority a candidate has, but for one in 2^64
    best: NDArray[np.int64] = np.where(there, priorities, np.uint64(0)).argmax(axis=1)
    return best


@lru_cache(maxsize=2**17)
def word_key(text: str) -> int:
    """`text_key`, remembered: words come again and again."""
    return text_key(text)


def text_key(text: str) -> int:
    """A key of 64 bits for a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: NDArray[np.uint64] = bits ^ (bits >> np.uint64(31))
    return result
