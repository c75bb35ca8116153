"""Work in one or several processes that fork from one with the libraries loaded.

Run as a program it is that process. A request is a line of JSON on stdin (number of processes,
function as `module:name`, arguments, files for stdout and stderr of each); the answers are the
processes' ids, and then, in a second line, their exit codes.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from helpers.server_process import ServerProcess, import_everything, server_process


@dataclass(frozen=True, slots=True)
class Group:
    """Processes started together, and where they talk."""

    server: ForkingServer
    pids: list[int]
    files: list[tuple[Path, Path]]

    def stdout(self, rank: int) -> str:
        """What one of them printed so far."""
        return self.files[rank][0].read_text(encoding="utf-8")

    def stderr(self, rank: int) -> str:
        """What one of them told so far."""
        return self.files[rank][1].read_text(encoding="utf-8")

    def kill_when(self, rank: int, condition: Callable[[], bool]) -> None:
        """Send SIGKILL to one of them as soon as the condition holds."""
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline, self.stderr(0)
            time.sleep(0.002)
        os.kill(self.pids[rank], signal.SIGKILL)

    def finish(self) -> list[int]:
        """Wait for all; the exit code of each, negative for a signal."""
        codes: list[int] = json.loads(self.server.answer())
        return codes


class ForkingServer:
    """The process that forks the groups, one group at a time."""

    def __init__(self, scratch: Path, server: ServerProcess) -> None:
        self._scratch = scratch
        self._server = server
        self._count = 0

    def answer(self) -> str:
        """The server's next line."""
        return self._server.answer()

    def start(self, count: int, function: str, *arguments: object) -> Group:
        """Fork `count` processes that call a function with the arguments as strings."""
        self._count += 1
        names = [f"{self._count}.{rank}" for rank in range(count)]
        files = [(self._scratch / f"{n}.out", self._scratch / f"{n}.err") for n in names]
        for file in (file for pair in files for file in pair):
            file.touch()
        paths = [[str(out), str(err)] for out, err in files]
        self._server.ask([count, function, [str(argument) for argument in arguments], paths])
        return Group(self, json.loads(self.answer()), files)

    def run(self, count: int, function: str, *arguments: object) -> list[str]:
        """The stdout of each of `count` processes, which must succeed."""
        group = self.start(count, function, *arguments)
        codes = group.finish()
        assert codes == [0] * count, "".join(group.stderr(rank) for rank in range(count))
        return [group.stdout(rank) for rank in range(count)]


@contextmanager
def forking_server(scratch: Path) -> Iterator[ForkingServer]:
    """A server for the tests of a module."""
    with server_process(__file__) as server:
        yield ForkingServer(scratch, server)


def factory_command(*arguments: str) -> None:
    """The command line, with many checkpoints in every phase."""
    import factory.training.trainer
    from factory.cli.main import main

    factory.training.trainer.CHECKPOINT_SECONDS = 0.02
    sys.argv = ["factory", *arguments]
    main()


def _serve() -> None:
    import_everything()
    for line in sys.stdin:
        count, function, arguments, files = json.loads(line)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        pids = []
        for rank in range(count):
            pid = os.fork()
            if pid == 0:
                _become(rank, count, port, files[rank])
                module, _, name = function.partition(":")
                getattr(importlib.import_module(module), name)(*arguments)
                sys.stdout.flush()
                os._exit(0)  # taking the libraries down would last longer than the work
            pids.append(pid)
        _tell(pids)
        _tell([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids])


def _become(rank: int, count: int, port: int, files: list[str]) -> None:
    for number, path in enumerate(files, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if count > 1:  # what torchrun sets
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def _tell(answer: list[int]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _serve()
