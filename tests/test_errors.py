"""Telling a full disk from everything else that can go wrong in a library."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from factory.errors import DataError, GateFailedError, write_failure

FULL = "No space left on device"


def chained(outer: Exception, inner: Exception, how: str) -> Exception:
    """`outer` raised because of, or while handling, `inner`."""
    try:
        try:
            raise inner
        except Exception as error:
            if how == "from":
                raise outer from error
            raise outer  # noqa: B904  the implicit chain is what is tested
    except Exception as error:
        return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "whatever"), FULL),
        (OSError(errno.EDQUOT, ""), "Disk quota exceeded"),
        (OSError(errno.EFBIG, ""), "File too large"),
        (Exception("Error while serializing: I/O error: (os error 28)"), FULL),
        (RuntimeError("[enforce fail] . PytorchStreamWriter failed writing file data/2"),
         "a file could not be written completely"),
        (chained(DataError("cannot be read", ["x"]), OSError(errno.ENOSPC, ""), "from"), FULL),
        (chained(RuntimeError("at exit"), OSError(errno.ENOSPC, ""), "while"), FULL),
    ],
)  # fmt: skip
def test_a_failed_write_is_found(tmp_path: Path, error: Exception, reason: str) -> None:
    assert write_failure(error, tmp_path) == reason


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        OSError(errno.ENOENT, "gone"),
        RuntimeError("I/O error: No such file or directory (os error 2)"),
        ValueError("PytorchStreamWriter failed"),
    ],
)
def test_anything_else_is_not(tmp_path: Path, error: Exception) -> None:
    assert write_failure(error, tmp_path) is None


@pytest.mark.parametrize(("free", "reason"), [(0, FULL), (2**20, None)])
def test_a_disk_without_room_explains_any_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, reason: str | None
) -> None:
    """Some libraries notice only that they cannot read back what they wrote."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    assert write_failure(ValueError("wire format was corrupt"), tmp_path) == reason
    assert write_failure(GateFailedError("gate 2", ["low"]), tmp_path) is None
