"""A folder for what a stage needs only while it works."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def scratch_directory(parent: Path) -> Iterator[Path]:
    """An empty folder below `parent`, gone at the end; a crashed run's is emptied first."""
    directory = parent / "scratch"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
