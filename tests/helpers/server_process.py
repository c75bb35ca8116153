"""A child process that is asked in lines of JSON and answers in lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """The child, ready to be asked."""

    process: subprocess.Popen[str]

    def ask(self, request: Any) -> None:
        """Send one request."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        """The child's next line."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()


@contextmanager
def server_process(script: str) -> Iterator[ServerProcess]:
    """Run a script of the tests until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield ServerProcess(process)
    finally:
        process.kill()
        process.communicate()
