"""How the training libraries behave inside our process."""

from __future__ import annotations

import contextlib
import ctypes
import os

# glibc's mallopt parameters (malloc.h).
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def prepare_libraries() -> None:
    """Quiet the libraries' own bars and notes, and keep them from sending usage data.

    Called before they are first imported; settings the user made in the environment stay.
    """
    for name, value in (
        ("HF_HUB_DISABLE_TELEMETRY", "1"),
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("TOKENIZERS_PARALLELISM", "true"),
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1"),
    ):
        os.environ.setdefault(name, value)


def keep_freed_memory() -> None:
    """Let the allocator reuse the large blocks every training step frees.

    By default glibc gives them back to the system and pays for fresh pages each step: a tenth of
    a CPU training step. Elsewhere than on glibc this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
