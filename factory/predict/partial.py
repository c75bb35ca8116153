"""Partial output: the logits of the rows scored so far, from which an interrupted job resumes."""

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
    """The logits of the first rows of an input, in a file that is only appended to.

    Only complete rows count, so the file is usable even after a crash.
    """

    def __init__(self, directory: Path, stream: IO[bytes], labels: int) -> None:
        self.directory = directory
        self._stream = stream
        self._labels = labels

    def rows(self, chunk: int) -> int:
        """The number of rows scored in whole chunks; the bytes after them are removed."""
        row_bytes = 4 * self._labels
        done = self._stream.seek(0, 2) // row_bytes // chunk * chunk
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
    """Open the partial output, new or of an earlier process; removed when the block succeeds.

    Args:
        about: the values that decide the logits, by their names in messages.

    Raises:
        PredictError: the partial output depends on something else, or its process still runs.
    """
    directory = output.with_name(f".{output.name}.partial")
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / LOGITS_FILE).open("a+b") as stream:
        _lock(stream, output)
        description = directory / ABOUT_FILE
        if restart:
            description.unlink(missing_ok=True)
        if description.exists():
            before = json.loads(description.read_text("utf-8"))
            if changed := [name for name, value in about.items() if before.get(name) != value]:
                raise PredictError(
                    f"{output}: {directory} is partial output for another {', '.join(changed)}; "
                    "undo the change, or start again with --restart"
                )
        else:
            stream.truncate(0)
            new = description.with_suffix(".new")
            new.write_text(json.dumps(about, indent=2) + "\n", "utf-8")
            new.replace(description)
        yield PartialOutput(directory, stream, labels)
    shutil.rmtree(directory)


def _lock(stream: IO[bytes], output: Path) -> None:
    """Refuse to append to a file that another process appends to."""
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
