"""Messages and progress on stderr: bars on a terminal, otherwise lines every 30 seconds."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

SAY = """
from factory.runtime.progress import say
say("loading the teacher")
say("12 rows")
"""

BAR = """
from factory.runtime.progress import bar
with bar("train", 3, "step", initial=1) as running:
    running.note("loss 0.5")
    running.advance()
    running.advance()
"""

BOTH = """
from factory.runtime.progress import bar, say
with bar("train", 2, "step") as running:
    running.advance(2)
    say("half way")
"""


def run(code: str) -> subprocess.CompletedProcess[bytes]:
    """Run code in a process without a terminal."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, timeout=60, check=True
    )


def run_on_terminal(code: str) -> tuple[bytes, bytes]:
    """Run code with a terminal for stderr; what arrives on stdout and on the terminal."""
    watcher, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))  # a new one has no columns to draw in
    try:
        finished = subprocess.run(
            [sys.executable, "-c", code],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=terminal,
            timeout=60,
            check=True,
        )
        os.close(terminal)
        return finished.stdout, os.read(watcher, 65536)
    finally:
        os.close(watcher)


def test_a_message_goes_to_stderr_only() -> None:
    result = run(SAY)
    assert result.stderr == b"loading the teacher\n12 rows\n"
    assert result.stdout == b""


def test_short_work_without_a_terminal_writes_only_messages() -> None:
    result = run(BOTH)
    assert result.stderr == b"half way\n"
    assert result.stdout == b""


def test_a_bar_on_a_terminal_shows_what_it_counts() -> None:
    out, shown = run_on_terminal(BAR)
    assert out == b""
    assert b"train" in shown
    assert b"3/3" in shown
    assert b"loss 0.5" in shown


def test_long_work_without_a_terminal_writes_lines() -> None:
    """Every update counts as 30 seconds here."""
    result = run("from factory.runtime import progress\nprogress.LINE_SECONDS = 1e-9\n" + BAR)
    first, second = result.stderr.decode().splitlines()
    assert first.startswith("train: 2/3 step, ")
    assert second.startswith("train: 3/3 step, ")
    assert " left, loss 0.5" in second
    assert result.stdout == b""


def test_a_quiet_process_writes_nothing() -> None:
    result = run("from factory.runtime import progress\nprogress.set_quiet(True)\n" + BOTH)
    assert (result.stdout, result.stderr) == (b"", b"")


def test_an_exception_leaves_the_bar() -> None:
    code = (
        "from factory.runtime.progress import bar\n"
        "try:\n"
        "    with bar('train', 2, 'step'):\n"
        "        raise KeyError('x')\n"
        "except KeyError:\n"
        "    print('caught')\n"
    )
    result = run(code)
    assert (result.stdout, result.stderr) == (b"caught\n", b"")
