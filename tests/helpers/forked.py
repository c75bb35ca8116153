"""Processes that fork from one with all libraries loaded, so that tests can start and kill many.

Run as a program it is that process. A request is a line of JSON on stdin (number of processes,
function as `module:name`, arguments, files for stdout and stderr of each, largest file in bytes or
null); the answers are the processes' ids, and then, in a second line, their exit codes.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[2]
# What transformers, torch, onnx and the factory's functions import on first use.
LAZY_LIBRARIES = (
    "matplotlib.backends.backend_svg", "onnxruntime", "optimum.exporters.onnx", "pandas",
    "scipy.optimize", "scipy.stats", "sklearn.metrics", "tensorboardX", "torch._dynamo",
    "torch.distributed", "torch.onnx", "transformers.models.bert.modeling_bert",
    "transformers.models.bert.tokenization_bert_fast",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Group:
    """Processes started together, with the files of their output."""

    server: Forks
    pids: list[int]
    files: list[tuple[Path, Path]]

    def stdout(self, rank: int = 0) -> str:
        """What a process wrote to stdout so far."""
        return self.files[rank][0].read_text(encoding="utf-8")

    def stderr(self, rank: int = 0) -> str:
        """What a process wrote to stderr so far."""
        return self.files[rank][1].read_text(encoding="utf-8")

    def wait_until(self, condition: Callable[[], bool], seconds: float = 120) -> bool:
        """Poll until the condition holds (True) or the first process has ended (False)."""
        deadline = time.monotonic() + seconds
        while not condition():
            # an ended process is a zombie until the server waits for it
            state = Path(f"/proc/{self.pids[0]}/stat").read_text(encoding="ascii")
            if state.rpartition(")")[2].split()[0] == "Z":
                return condition()
            assert time.monotonic() < deadline, f"waited {seconds} s; stderr:\n{self.stderr()}"
            time.sleep(0.002)
        return True

    def send(self, number: signal.Signals, rank: int = 0) -> None:
        """Send a signal to a process."""
        os.kill(self.pids[rank], number)

    def finish(self) -> list[int]:
        """Wait for all; the exit code of each, negative for a signal."""
        codes: list[int] = json.loads(self.server.answer())
        return codes


class Forks:
    """The server process, which forks one group at a time."""

    def __init__(self, scratch: Path, process: subprocess.Popen[str]) -> None:
        self._scratch = scratch
        self._process = process
        self._count = 0

    def answer(self) -> str:
        """The server's next line."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def start(
        self, count: int, function: str, *arguments: object, largest_file: int | None = None
    ) -> Group:
        """Fork `count` processes that call a function with the arguments as strings."""
        self._count += 1
        names = [f"{self._count}.{rank}" for rank in range(count)]
        files = [(self._scratch / f"{n}.out", self._scratch / f"{n}.err") for n in names]
        paths = [[str(out), str(err)] for out, err in files]
        for file in (file for pair in files for file in pair):
            file.touch()
        request = [count, function, [str(part) for part in arguments], paths, largest_file]
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Group(self, json.loads(self.answer()), files)

    def command(self, *arguments: object, count: int = 1, largest_file: int | None = None) -> Group:
        """Fork `count` processes that run the command line."""
        function = "helpers.forked:factory_command"
        return self.start(count, function, *arguments, largest_file=largest_file)

    def run(self, count: int, function: str, *arguments: object) -> list[str]:
        """The stdout of each of `count` processes, which must succeed."""
        group = self.start(count, function, *arguments)
        codes = group.finish()
        assert codes == [0] * count, "".join(group.stderr(rank) for rank in range(count))
        return [group.stdout(rank) for rank in range(count)]


@contextmanager
def fork_server(scratch: Path) -> Iterator[Forks]:
    """Run the server until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, __file__],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Forks(scratch, process)
    finally:
        process.kill()
        process.communicate()


def factory_command(*arguments: str) -> None:
    """The command line, with many checkpoints in every phase and small shards of a corpus."""
    import factory.data.shards
    import factory.training.trainer
    from factory.cli.main import main

    factory.training.trainer.CHECKPOINT_SECONDS = 0.02
    factory.data.shards.SHARD_TOKENS = 1000
    factory.data.shards.BATCH_PIECES = 16
    sys.argv = ["factory", *arguments]
    main()


def _serve() -> None:
    import factory

    for module in pkgutil.walk_packages(factory.__path__, "factory."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in LAZY_LIBRARIES:
        importlib.import_module(name)
    for line in sys.stdin:
        count, function, arguments, files, largest_file = json.loads(line)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        pids = []
        for rank in range(count):
            pid = os.fork()
            if pid == 0:
                _become(rank, count, port, files[rank], largest_file)
                _call(function, arguments)
            pids.append(pid)
        _write(pids)
        _write([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids])


def _become(rank: int, count: int, port: int, files: list[str], largest_file: int | None) -> None:
    for number, path in enumerate(files, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if count > 1:  # what torchrun sets
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if largest_file is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))


def _call(function: str, arguments: list[str]) -> NoReturn:
    code = 0
    try:
        module, _, name = function.partition(":")
        getattr(importlib.import_module(module), name)(*arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # unloading the libraries would take longer than the work


def _write(answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _serve()
