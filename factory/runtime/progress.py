"""Talk on stderr: messages, and bars that are silent when nobody watches.

Of several processes started together only the first talks.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from factory.runtime import distributed as processes


@dataclass(frozen=True, slots=True)
class Bar:
    """One running progress bar."""

    handle: Any

    def advance(self, count: int = 1) -> None:
        """Move on by `count` units."""
        self.handle.update(count)

    def note(self, text: str) -> None:
        """Show a short text behind the bar."""
        self.handle.set_postfix_str(text, refresh=False)


_quiet = False


def set_quiet(quiet: bool) -> None:
    """Whether `say` and the bars of this process stay silent from now on."""
    global _quiet
    _quiet = quiet


def say(message: str) -> None:
    """One line on stderr, kept apart from any running bar."""
    if processes.from_environment().first and not _quiet:
        tqdm.write(message, file=sys.stderr)


@contextlib.contextmanager
def bar(
    description: str, total: int | None, unit: str, initial: int = 0, *, quiet: bool = False
) -> Iterator[Bar]:
    """A bar on stderr with rate and time left; draws nothing when stderr is no terminal."""
    with tqdm(
        desc=description,
        total=total,
        unit=unit,
        initial=initial,
        file=sys.stderr,
        disable=None if processes.from_environment().first and not quiet and not _quiet else True,
        dynamic_ncols=True,
        smoothing=0.1,
        leave=True,
    ) as handle:
        yield Bar(handle)
