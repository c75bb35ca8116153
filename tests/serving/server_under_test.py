"""The real server in a process of its own, for the tests that need its signals and its log."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]


def start(*arguments: str, stderr: Any = subprocess.PIPE, **variables: str) -> Any:
    """`python -m serving` with nothing of the test's environment in its settings."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("SERVING_")}
    return subprocess.Popen(
        [sys.executable, "-m", "serving", *arguments],
        cwd=ROOT,
        env=inherited | variables,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


def finish(process: Any) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a process that ends by itself."""
    stdout, stderr = process.communicate(timeout=30)
    return process.returncode, stdout, stderr


@dataclass
class Running:
    """A server that is ready."""

    process: Any
    url: str
    stderr: Path

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return "127.0.0.1", int(self.url.rsplit(":", 1)[1])

    def log(self) -> list[dict[str, Any]]:
        """Every line logged until now."""
        return [json.loads(line) for line in self.stderr.read_text("utf-8").splitlines()]

    def messages(self) -> list[str]:
        """What the lines say."""
        return [line.get("message", "") for line in self.log()]

    def wait_for(self, message: str, count: int = 1) -> None:
        """Wait until so many lines hold the words."""
        wait_until(lambda: sum(message in line for line in self.messages()) >= count)

    def finish(self) -> tuple[int, str]:
        """Exit status and stdout, once it ends by itself."""
        status, stdout, _ = finish(self.process)
        return status, stdout


def wait_until(condition: Any, seconds: float = 30) -> None:
    """Wait until something is true; fail if it never is."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


@contextmanager
def running(bundle: Path, *arguments: str, **variables: str) -> Iterator[Running]:
    """A server that is ready; killed if the test did not stop it."""
    with tempfile.NamedTemporaryFile() as log:
        process = start(str(bundle), "--port", "0", *arguments, stderr=log, **variables)
        try:
            stderr = Path(log.name)
            announced = re.compile(r"serving tiny \w+ on (http://[^\s\"]+)")
            wait_until(lambda: announced.search(stderr.read_text()) or process.poll() is not None)
            found = announced.search(stderr.read_text())
            assert found, stderr.read_text()
            server = Running(process, found[1], stderr)
            wait_until(lambda: httpx.get(f"{server.url}/ready", timeout=10).status_code == 200)
            yield server
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()
