"""Candidates that do not depend on the text: neighbours of words, each looked up once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from factory.augment.neighbours import Neighbours

# Words whose neighbours are remembered, so that memory stays flat over any number of rows.
CACHED_WORDS = 2**16


class CachedNeighbours:
    """One source of neighbours that is asked for every word once."""

    def __init__(self, source: Neighbours, count: int) -> None:
        """Ask `source` for `count` neighbours of each word."""
        self._source = source
        self._count = count
        self._known: dict[str, list[str]] = {}

    def of(self, words: Sequence[str]) -> list[list[str]]:
        """Neighbours of each word as it is written, or else of its lower case; [] if unknown."""
        self._look_up(words)
        missing = [word.lower() for word in words if not self._known[word]]
        self._look_up(missing)
        found = [self._known[word] or self._known[word.lower()] for word in words]
        self._forget()
        return found

    def _look_up(self, words: Sequence[str]) -> None:
        new = [word for word in dict.fromkeys(words) if word not in self._known]
        if new:
            found = self._source.neighbours(new, self._count)
            self._known.update(zip(new, found, strict=True))

    def _forget(self) -> None:
        for word in list(self._known)[: max(0, len(self._known) - CACHED_WORDS)]:
            del self._known[word]


def first_known(
    sources: Mapping[str, CachedNeighbours], order: Sequence[str], words: Sequence[str]
) -> list[tuple[str, list[str]]]:
    """For each word the first source that knows it, and the neighbours; ("", []) if none does."""
    found: list[tuple[str, list[str]]] = [("", [])] * len(words)
    for name in order:
        open_places = [place for place, (source, _) in enumerate(found) if not source]
        lists = sources[name].of([words[place] for place in open_places])
        for place, neighbours in zip(open_places, lists, strict=True):
            if neighbours:
                found[place] = (name, neighbours)
    return found
