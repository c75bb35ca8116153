"""Partial output: the logits scored so far, and of which input, so that work can be resumed."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from factory.errors import PredictError

LOGITS_FILE = "logits.float32"
ABOUT_FILE = "about.json"


class PartialOutput:
    """The logits of the first rows of an input, in a file that only grows.

    A row counts once all of its bytes are there, so whatever ends the process leaves a beginning
    that can be used; the order of rows is that of the input.
    """

    def __init__(self, directory: Path, stream: IO[bytes], labels: int) -> None:
        self.directory = directory
        self._stream = stream
        self._labels = labels

    def rows(self, chunk: int) -> int:
        """Rows that are done, in whole chunks; what stands behind them is forgotten."""
        row_bytes = 4 * self._labels
        size = self._stream.seek(0, 2)
        done = size // row_bytes // chunk * chunk
        self._stream.truncate(done * row_bytes)
        self._stream.seek(0, 2)
        return done

    def append(self, logits: NDArray[np.float32]) -> None:
        """Add the logits of the next rows: (rows, labels)."""
        self._stream.write(logits.astype("<f4").tobytes())
        self._stream.flush()

    def chunks(self, rows: int) -> Iterator[NDArray[np.float32]]:
        """All logits from the start, this many rows at a time."""
        with (self.directory / LOGITS_FILE).open("rb") as stream:
            while content := stream.read(4 * self._labels * rows):
                logits = np.frombuffer(content, dtype="<f4").astype(np.float32)
                yield logits.reshape(-1, self._labels)


@contextlib.contextmanager
def partial_output(
    output: Path, about: dict[str, object], labels: int, *, restart: bool
) -> Iterator[PartialOutput]:
    """The partial output, new or of an earlier process; it is removed when the block succeeds.

    Args:
        about: what the logits depend on; partial output for anything else is refused.

    Raises:
        PredictError: the partial output is for something else, or its process still runs.
    """
    directory = output.with_name(f".{output.name}.partial")
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / LOGITS_FILE).open("a+b") as stream:
        _lock(stream, output)
        description = directory / ABOUT_FILE
        if restart:
            description.unlink(missing_ok=True)
        if description.exists():
            _check_same(json.loads(description.read_text("utf-8")), about, output, directory)
        else:
            stream.truncate(0)
            new = description.with_suffix(".new")
            new.write_text(json.dumps(about, indent=2) + "\n", "utf-8")
            new.replace(description)
        yield PartialOutput(directory, stream, labels)
    shutil.rmtree(directory)


def _check_same(
    before: dict[str, object], now: dict[str, object], output: Path, directory: Path
) -> None:
    if changed := [name for name, value in now.items() if before.get(name) != value]:
        raise PredictError(
            f"{output}: {directory} is partial output for another {', '.join(changed)}; "
            "undo the change, or start again with --restart"
        )


def _lock(stream: IO[bytes], output: Path) -> None:
    """Two processes must not add to one file."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise PredictError(
            f"{output}: another process is writing it; wait, or give another --output"
        ) from error
