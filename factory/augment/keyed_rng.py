"""Random numbers looked up by key (seed, row, copy, word), independent of the order of work."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Purposes of a draw. Draws of one row and copy for different purposes are independent.
REPLACE, SIDE, GROUP, CHOICE, CAP = range(5)


def random_bits(*key: ArrayLike) -> NDArray[np.uint64]:
    """64 pseudo-random bits for each combination of integers; the arguments broadcast.

    SplitMix64's finalizer, applied to one integer after the other (Steele, Lea, Flood: Fast
    splittable pseudorandom number generators, 2014).
    """
    state = np.zeros((), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for part in key:
            number = np.asarray(part).astype(np.uint64)
            state = _mixed(_mixed(state) + number + np.uint64(0x9E3779B97F4A7C15))
    return state


def uniform(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    """One number in [0, 1) for each element of `bits`."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def choose(
    bits: NDArray[np.uint64],
    candidates: NDArray[np.uint64],
    exists: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Choose one candidate per draw, uniformly and independently of the candidates' order.

    Each candidate gets a priority from the draw and its own key, and the highest priority wins.
    A model that returns the same K candidates in another order, because the last bits of its
    logits depend on the batch, therefore changes nothing. One case remains: a candidate at rank K
    that is among the K with one batch size and not with another.

    Shapes:
        bits: (draws,)
        candidates, exists: (draws, K) keys of the candidates, and which of them exist; None: all
    """
    priorities = random_bits(bits[:, None], candidates)
    if exists is not None:
        # 0 means "does not exist"; an existing candidate has it with probability 2^-64
        priorities[~exists] = 0
    best: NDArray[np.int64] = priorities.argmax(axis=1)
    return best


@lru_cache(maxsize=2**17)
def word_key(word: str) -> int:
    """`text_key` with a cache, because words repeat often."""
    return text_key(word)


def text_key(text: str) -> int:
    """A 64-bit hash of a text, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: NDArray[np.uint64] = bits ^ (bits >> np.uint64(31))
    return result
