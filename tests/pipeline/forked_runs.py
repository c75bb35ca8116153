"""`factory run` in processes that fork from one with the libraries loaded, so that kills are cheap.

Run as a program it is that process: a JSON list per line on stdin (arguments, stdout file, stderr
file, largest file in bytes or null), the child's pid and then its wait status on stdout.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers.server_process import ServerProcess, import_everything, server_process


class Run:
    """One forked `factory run`."""

    def __init__(self, server: ForkServer, pid: int, out: Path, err: Path) -> None:
        self._server = server
        self.pid = pid
        self._out, self._err = out, err

    @property
    def stdout(self) -> str:
        """What it printed so far."""
        return self._out.read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        """What it wrote to stderr so far."""
        return self._err.read_text(encoding="utf-8")

    def running(self) -> bool:
        """Whether it has not ended; an ended child is a zombie until waited for."""
        state = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii")
        return state.rpartition(")")[2].split()[0] != "Z"

    def wait_until(self, condition: Callable[[], bool], seconds: float = 120) -> bool:
        """Poll until the condition holds (True) or the process has ended (False)."""
        deadline = time.monotonic() + seconds
        while not condition():
            if not self.running():
                return condition()
            assert time.monotonic() < deadline, f"waited {seconds} s; stderr:\n{self.stderr}"
            time.sleep(0.002)
        return True

    def send(self, number: signal.Signals) -> None:
        """Send a signal; a child that has ended is still there to receive it."""
        os.kill(self.pid, number)

    def finish(self) -> int:
        """Wait for the end; the exit code, negative for a signal."""
        return os.waitstatus_to_exitcode(int(self._server.answer()))


class ForkServer:
    """The process that forks the runs, one at a time."""

    def __init__(self, scratch: Path, server: ServerProcess) -> None:
        self._scratch = scratch
        self._server = server
        self._count = 0

    def answer(self) -> str:
        """The server's next line."""
        return self._server.answer()

    def start(self, *arguments: object, largest_file: int | None = None) -> Run:
        """Fork one command line."""
        self._count += 1
        out, err = (self._scratch / f"{self._count}.{name}" for name in ("out", "err"))
        out.touch()
        err.touch()
        parts = [str(argument) for argument in arguments]
        self._server.ask([parts, str(out), str(err), largest_file])
        return Run(self, int(self.answer()), out, err)


@contextmanager
def fork_server(scratch: Path) -> Iterator[ForkServer]:
    """A server for the tests of a module."""
    with server_process(__file__) as server:
        yield ForkServer(scratch, server)


def _serve() -> None:
    import factory.data.shards
    import factory.training.trainer

    import_everything()
    # many checkpoints in every phase, so that there is one to resume from
    factory.training.trainer.CHECKPOINT_SECONDS = 0.02
    # small shards, so that a tiny corpus has several
    factory.data.shards.SHARD_TOKENS = 1000
    factory.data.shards.BATCH_PIECES = 16
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _become(*json.loads(line))
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
        sys.stdout.write(f"{os.waitpid(pid, 0)[1]}\n")
        sys.stdout.flush()


def _become(arguments: list[str], out: str, err: str, largest_file: int | None) -> Any:
    import resource

    from factory.cli.main import main

    for path, number in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    sys.argv = ["factory", *arguments]
    main()


if __name__ == "__main__":
    _serve()
