"""Which texts run together: near in length, a bounded number of padded tokens."""

from __future__ import annotations

from collections.abc import Sequence

# A text joins shorter ones only up to this many times their length: beyond, padding costs more
# than the run it saves.
LENGTH_RATIO = 1.5


def batch_around(lengths: Sequence[int], start: int, budget: int) -> slice:
    """The neighbours in a sorted list of lengths that run with the one at `start`.

    First the shorter ones, which add no padding to it, then longer ones as long as they fit.

    Args:
        lengths: tokens of each text that waits, ascending.
        budget: padded tokens of a run; a text longer than that runs alone.
    """
    first, last = start, start
    floor = lengths[start] / LENGTH_RATIO
    while first > 0 and lengths[first - 1] >= floor:
        if (last - first + 2) * lengths[last] > budget:
            break
        first -= 1
    ceiling = lengths[first] * LENGTH_RATIO
    while last + 1 < len(lengths) and lengths[last + 1] <= ceiling:
        if (last - first + 2) * lengths[last + 1] > budget:
            break
        last += 1
    return slice(first, last + 1)
