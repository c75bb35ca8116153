"""Which texts run together, and when: near in length, a bounded number of padded tokens."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Generic, TypeVar

# A text joins shorter ones only up to this many times their length: beyond, padding costs more
# than the run it saves.
LENGTH_RATIO = 1.5
# So many of the oldest texts are run to the last before others are looked at: enough to find some
# of like length, few enough that nobody waits for long.
WINDOW_TEXTS = 64

Item = TypeVar("Item", bound=Sized)


def near_the_shortest(lengths: Sequence[int], budget: int) -> int:
    """How many of a sorted list of lengths run together with the first.

    Args:
        lengths: tokens of each text, ascending.
        budget: padded tokens of a run; a text longer than that runs alone.
    """
    count = 1
    ceiling = lengths[0] * LENGTH_RATIO
    while count < len(lengths) and lengths[count] <= ceiling:
        if (count + 1) * lengths[count] > budget:
            break
        count += 1
    return count


class WaitingLine(Generic[Item]):
    """Texts that wait, in the order they are to be run; knows nothing of them but their length.

    The oldest ones make a window, which is run from the shortest text to the longest, so that no
    text waits for more than its window and the one before. Between two runs of long texts the
    short ones behind the window get a run of theirs.

    Args:
        budget: padded tokens of a run; 0 lets every text run alone.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._window: list[Item] = []  # by length
        self._behind: list[Item] = []  # by arrival
        self._last_length = 0

    def __len__(self) -> int:
        """Texts that wait."""
        return len(self._window) + len(self._behind)

    def add(self, item: Item) -> None:
        """Put a text at the end."""
        self._behind.append(item)

    def take(self) -> list[Item]:
        """Remove the texts of the next run, shortest first; there must be some."""
        if not self._window:
            self._window = sorted(self._behind[:WINDOW_TEXTS], key=len)
            del self._behind[:WINDOW_TEXTS]
        elif self._behind:
            limit = min(self._last_length, len(self._window[0])) / LENGTH_RATIO
            overtaking = sorted((item for item in self._behind if len(item) < limit), key=len)
            if overtaking:
                taken = self._take_from(overtaking)
                gone = {id(item) for item in taken}
                self._behind = [item for item in self._behind if id(item) not in gone]
                self._last_length = 0  # the window's turn comes next
                return taken
        taken = self._take_from(self._window)
        self._last_length = len(taken[-1])
        return taken

    def clear(self) -> list[Item]:
        """Remove every text."""
        everything = self._window + self._behind
        self._window, self._behind = [], []
        return everything

    def _take_from(self, by_length: list[Item]) -> list[Item]:
        count = near_the_shortest([len(item) for item in by_length], self._budget)
        taken = by_length[:count]
        del by_length[:count]
        return taken
