"""Whether an error of a library was a write that failed, and the system's words for it."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from factory.errors import FactoryError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What torch.save says when its stream breaks; it keeps the system's reason to itself.
TORCH_SAVE = ("PytorchStreamWriter failed", "iostream error", "unexpected pos")
LEAST_FREE_BYTES = 2**20


def write_failure(error: BaseException, directory: Path) -> str | None:
    """Why writing below `directory` failed, or None when `error` is about something else.

    Several libraries write from their own native code and wrap the reason in an error that is no
    OSError; some notice only when they read back what they could not write.
    """
    for link in _chain(error):
        if isinstance(link, OSError) and link.errno in NO_ROOM:
            return os.strerror(link.errno)
        text = str(link)
        native = re.search(r"\(os error (\d+)\)", text)  # safetensors
        if native and int(native.group(1)) in NO_ROOM:
            return os.strerror(int(native.group(1)))
        if isinstance(link, RuntimeError) and any(words in text for words in TORCH_SAVE):
            return "a file could not be written to its end"
    # our own errors know what went wrong; a full disk is a guess about others'
    if not isinstance(error, FactoryError) and _free_bytes(directory) < LEAST_FREE_BYTES:
        return os.strerror(errno.ENOSPC)
    return None


def _free_bytes(directory: Path) -> int:
    return shutil.disk_usage(directory).free


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those it came from."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__
