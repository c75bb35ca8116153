"""Memory that was freed goes back to the system."""

from __future__ import annotations

import ctypes


def return_freed_memory() -> None:
    """Ask the C library to let go of what it keeps for later.

    Batches of ever other sizes leave holes in glibc's heap that the next ones do not fit into: it
    grows by some KiB for every row, with nothing in it. Other C libraries do not keep as much.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):  # not glibc
        return
