"""Messages and progress on stderr; in a group of processes only rank 0 writes.

Progress is a bar on a terminal, elsewhere (CI, log files) a line every 30 seconds.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from factory.runtime import distributed

LINE_SECONDS = 30.0
LINE = "{desc}: {n_fmt}/{total_fmt} {unit}, {rate_fmt}, {remaining} left{postfix}"
LINE_WITHOUT_TOTAL = "{desc}: {n_fmt} {unit}, {rate_fmt}{postfix}"


@dataclass(frozen=True, slots=True)
class Bar:
    """One running progress bar."""

    handle: Any

    def advance(self, count: int = 1) -> None:
        """Advance by `count` units."""
        self.handle.update(count)

    def note(self, text: str) -> None:
        """Show a short text after the bar."""
        self.handle.set_postfix_str(text, refresh=False)


class _Lines:
    """A stream for tqdm that writes every refresh as a line."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(f"{text.strip()}\n")

    def flush(self) -> None:
        sys.stderr.flush()


_quiet = False


def set_quiet(quiet: bool) -> None:
    """Turn off `say` and all bars of this process, or turn them on again."""
    global _quiet
    _quiet = quiet


def say(message: str) -> None:
    """Write one line to stderr without breaking a running bar."""
    if distributed.from_environment().is_main and not _quiet:
        tqdm.write(message, file=sys.stderr)


@contextlib.contextmanager
def bar(description: str, total: int | None, unit: str, initial: int = 0) -> Iterator[Bar]:
    """Progress on stderr with rate and time left, closed at the end."""
    terminal = sys.stderr.isatty()
    with tqdm(
        desc=description,
        total=total,
        unit=unit,
        initial=initial,
        file=sys.stderr if terminal else _Lines(),
        disable=_quiet or not distributed.from_environment().is_main,
        smoothing=0.1,
        leave=terminal,
        dynamic_ncols=terminal,
        mininterval=0.1 if terminal else LINE_SECONDS,
        maxinterval=10.0 if terminal else LINE_SECONDS,
        miniters=None if terminal else 1,
        delay=0 if terminal else LINE_SECONDS,
        bar_format=None if terminal else (LINE if total else LINE_WITHOUT_TOTAL),
    ) as handle:
        yield Bar(handle)
