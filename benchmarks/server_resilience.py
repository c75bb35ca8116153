"""The server under what breaks servers: overload, stops, reloads, rolling restarts, hours of load.

    python benchmarks/server_resilience.py BUNDLE [--parts overload stop reload rolling soak]
        [--overload-seconds 120] [--soak-minutes 30]

overload   256 clients on a queue of 64 texts, each asking again at once when refused; in slices,
           between slices of 32 clients that tell what the machine can do at that time.
stop       SIGTERM while 64 requests are in flight; five times.
reload     20 times SIGHUP under 16 clients, alternating between two copies of the bundle.
rolling    two servers, one after the other stopped and started anew under 16 clients that go to
           whichever says it is ready, as a load balancer does; five rounds.
soak       clients that start requests at 70 % of the measured rate, whatever the answers take;
           resident memory at every tenth of the time.

A request is lost when its connection breaks or its answer is not 200 (429 counts by itself in
overload). The clients are one process beside the server. Texts are those of server.py. Prints a
table and updates server_resilience.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from server_texts import free_port, write_texts

from factory.runtime.environment import library_versions, machine_facts
from factory.runtime.progress import say

HERE = Path(__file__).parent
RESULT_FILE = Path(__file__).with_suffix(".json")
PARTS = ("overload", "stop", "reload", "rolling", "soak")
QUEUE = 64
CAPACITY_CLIENTS, OVERLOAD_CLIENTS, CLIENTS = 32, 256, 16
ROUNDS = 4
RELOADS, STOPS, RESTARTS = 20, 5, 5
SOAK_SHARE = 0.7


@dataclass(slots=True)
class Answers:
    """What clients saw."""

    milliseconds: list[float] = field(default_factory=list)  # of the answered ones
    refused: int = 0
    lost: list[str] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        """Milliseconds within which that share of the answered requests had their answer."""
        return float(np.percentile(self.milliseconds, share))


class Server:
    """`python -m serving` in a process of its own."""

    def __init__(self, bundle: Path, port: int, **variables: str) -> None:
        self.port = port
        inherited = {key: value for key, value in os.environ.items() if key[:8] != "SERVING_"}
        self.process = psutil.Popen(
            [sys.executable, "-m", "serving", str(bundle), "--port", str(port)],
            env=inherited | {"PYTHONPATH": str(HERE.parent)} | variables,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    async def ready(self) -> bool:
        """Whether it says so."""
        try:
            status, _ = await ask(self.port, "GET", "/ready", b"")
        except OSError:
            return False
        return status == 200

    async def wait_until_ready(self) -> None:
        """Return at the first yes."""
        while not await self.ready():
            if self.process.poll() is not None:
                sys.exit(f"the server ended with {self.process.returncode}")
            await asyncio.sleep(0.05)

    def resident_megabytes(self) -> float:
        """Memory of all its processes."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(member.memory_info().rss for member in family) / 1e6


@asynccontextmanager
async def running(bundle: Path, **variables: str) -> AsyncIterator[Server]:
    """A server that is ready, killed in the end."""
    server = Server(bundle, free_port(), **variables)
    try:
        await server.wait_until_ready()
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait()


class Connection:
    """One keep-alive connection; asks, and reads the answer."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body; a connection the server closed after its last answer is opened anew.

        Raises:
            OSError, EOFError: the connection broke.
        """
        if self._streams is None or self._streams[0].at_eof():
            self.close()
            self._streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self._streams
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        try:
            writer.write(head.encode() + body)
            lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
            fields = dict(line.split(b": ", 1) for line in lines[1:] if line)
            content = await reader.readexactly(int(fields.get(b"content-length", 0)))
        except BaseException:
            self.close()
            raise
        if fields.get(b"connection") == b"close":
            self.close()
        return int(lines[0].split()[1]), content

    def close(self) -> None:
        """Leave."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def ask(port: int, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    """One request on a connection of its own."""
    connection = Connection(port)
    try:
        return await connection.ask(method, path, body)
    finally:
        connection.close()


async def request(connection: Connection, body: bytes, answers: Answers) -> None:
    """One request, counted."""
    start = time.perf_counter()
    try:
        status, content = await connection.ask("POST", "/predict", body)
    except (OSError, EOFError) as error:
        answers.lost.append(repr(error))
        return
    if status == 200:
        answers.milliseconds.append(1000 * (time.perf_counter() - start))
    elif status == 429:
        answers.refused += 1
    else:
        answers.lost.append(f"{status} {content[:200]!r}")


async def closed_loop(
    clients: int,
    bodies: list[bytes],
    choose: Callable[[], Server],
    going: Callable[[], bool],
) -> Answers:
    """Clients that each ask again as soon as they are answered or refused."""
    answers = Answers()

    async def client(number: int) -> None:
        chooser = random.Random(number)
        connections: dict[int, Connection] = {}
        while going():
            port = choose().port
            connection = connections.setdefault(port, Connection(port))
            await request(connection, chooser.choice(bodies), answers)
        for connection in connections.values():
            connection.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return answers


def for_seconds(seconds: float) -> Callable[[], bool]:
    """True until so much time has passed."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() < end


async def overload(bundle: Path, bodies: list[bytes], options: argparse.Namespace) -> Any:
    """Answers per second under four times too many clients, against what is possible."""
    seconds = options.overload_seconds / ROUNDS
    async with running(bundle, SERVING_QUEUE_LIMIT=str(QUEUE)) as server:
        start_memory = server.resident_megabytes()
        capacity, goodput, memory = [], [], []
        total = Answers()
        for number in range(ROUNDS + 1):
            at_rest = await closed_loop(
                CAPACITY_CLIENTS, bodies, lambda: server, for_seconds(seconds / 3)
            )
            capacity.append(len(at_rest.milliseconds) / (seconds / 3))
            if number < ROUNDS:
                slice_ = await closed_loop(
                    OVERLOAD_CLIENTS, bodies, lambda: server, for_seconds(seconds)
                )
                goodput.append(len(slice_.milliseconds) / seconds)
                memory.append(server.resident_megabytes())
                total.milliseconds += slice_.milliseconds
                total.refused += slice_.refused
                total.lost += slice_.lost
    pairs = zip(goodput, capacity, capacity[1:], strict=False)
    return {
        "goodput of capacity": statistics.median(2 * good / (a + b) for good, a, b in pairs),
        "answered per second": statistics.median(goodput),
        "refused per second": total.refused / options.overload_seconds,
        "answered p50 ms": total.percentile(50),
        "answered p99 ms": total.percentile(99),
        "lost": len(total.lost),
        "resident MB before": start_memory,
        "resident MB, most": max(memory),
    }


async def stop(bundle: Path, bodies: list[bytes], _: argparse.Namespace) -> Any:
    """Requests in flight when the server is told to stop."""
    lost, answered, codes, seconds = [], 0, [], []
    for _number in range(STOPS):
        async with running(bundle) as server:
            answers = Answers()
            connections = [Connection(server.port) for _ in range(64)]
            for connection in connections:  # warm, so that all are accepted
                await connection.ask("GET", "/health", b"")
            tasks = [
                asyncio.create_task(request(connection, bodies[index], answers))
                for index, connection in enumerate(connections)
            ]
            await asyncio.sleep(0.02)  # sent, most of them not answered
            in_flight = 64 - len(answers.milliseconds)
            server.process.send_signal(signal.SIGTERM)
            begin = time.monotonic()
            await asyncio.gather(*tasks)
            for connection in connections:
                connection.close()
            codes.append(await asyncio.to_thread(server.process.wait, 60))
            seconds.append(time.monotonic() - begin)
            lost += answers.lost
            answered += len(answers.milliseconds)
    return {
        "answered": answered,
        "lost": len(lost),
        "reasons": dict(Counter(lost)),
        "in flight at the last signal": in_flight,
        "exit codes": codes,
        "seconds to the end": statistics.median(seconds),
    }


async def reload(bundle: Path, bodies: list[bytes], _: argparse.Namespace) -> Any:
    """Bundles exchanged under load."""
    with tempfile.TemporaryDirectory() as scratch:
        link = Path(scratch) / "current"
        copies = [Path(scratch) / name for name in ("one", "two")]
        for copy in copies:
            shutil.copytree(bundle, copy)
        link.symlink_to(copies[0])
        async with running(link) as server:
            before = server.resident_megabytes()
            stopped = False
            clients = asyncio.create_task(
                closed_loop(CLIENTS, bodies, lambda: server, lambda: not stopped)
            )
            for number in range(RELOADS):
                other = Path(scratch) / "next"
                other.symlink_to(copies[(number + 1) % 2])
                other.replace(link)
                server.process.send_signal(signal.SIGHUP)
                await asyncio.sleep(2)
            stopped = True
            answers = await clients
            status, metrics = await ask(server.port, "GET", "/metrics", b"")
            counted = [
                line
                for line in metrics.decode().splitlines()
                if "reload" in line and "#" not in line
            ]
            after = server.resident_megabytes()
    return {
        "reloads asked": RELOADS,
        "reloads counted": counted if status == 200 else [],
        "answered": len(answers.milliseconds),
        "lost": len(answers.lost) + answers.refused,
        "reasons": dict(Counter(answers.lost)),
        "answered p50 ms": answers.percentile(50),
        "answered p99 ms": answers.percentile(99),
        "resident MB before": before,
        "resident MB after": after,
    }


async def rolling(bundle: Path, bodies: list[bytes], _: argparse.Namespace) -> Any:
    """Servers stopped and started one by one behind clients that follow /ready."""
    variables = {"SERVING_DRAIN_SECONDS": "2"}
    servers = [Server(bundle, free_port(), **variables) for _ in range(2)]
    try:
        for server in servers:
            await server.wait_until_ready()
        usable = list(servers)
        stopped = False

        async def look() -> None:
            while not stopped:
                usable[:] = [server for server in servers if await server.ready()] or usable
                await asyncio.sleep(0.2)

        balancer = asyncio.create_task(look())
        clients = asyncio.create_task(
            closed_loop(CLIENTS, bodies, lambda: random.choice(usable), lambda: not stopped)
        )
        codes = []
        for number in range(2 * RESTARTS):
            old = servers[number % 2]
            await asyncio.sleep(1)
            old.process.send_signal(signal.SIGTERM)
            codes.append(await asyncio.to_thread(old.process.wait, 60))
            servers[number % 2] = Server(bundle, free_port(), **variables)
            await servers[number % 2].wait_until_ready()
            await asyncio.sleep(0.5)
        stopped = True
        answers = await clients
        await balancer
    finally:
        for server in servers:
            server.process.kill()
            server.process.wait()
    return {
        "restarts": 2 * RESTARTS,
        "answered": len(answers.milliseconds),
        "lost": len(answers.lost) + answers.refused,
        "reasons": dict(Counter(answers.lost)),
        "exit codes": sorted(set(codes)),
        "answered p99 ms": answers.percentile(99),
    }


async def soak(bundle: Path, bodies: list[bytes], options: argparse.Namespace) -> Any:
    """Hours of a load that leaves air to breathe."""
    seconds = 60 * options.soak_minutes
    async with running(bundle) as server:
        full = await closed_loop(CAPACITY_CLIENTS, bodies, lambda: server, for_seconds(20))
        rate = SOAK_SHARE * len(full.milliseconds) / 20
        memory = [server.resident_megabytes()]
        answers, chooser, idle = Answers(), random.Random(0), [Connection(server.port)]
        tasks: set[asyncio.Task[None]] = set()
        begin = time.monotonic()

        async def one() -> None:
            connection = idle.pop() if idle else Connection(server.port)
            await request(connection, chooser.choice(bodies), answers)
            idle.append(connection)

        due = begin
        while due < begin + seconds:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(one())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            due += chooser.expovariate(rate)
            if due - begin > seconds * len(memory) / 10:
                memory.append(server.resident_megabytes())
        await asyncio.gather(*tasks)
        memory.append(server.resident_megabytes())
        for connection in idle:
            connection.close()
    return {
        "minutes": options.soak_minutes,
        "requests per second": rate,
        "answered": len(answers.milliseconds),
        "lost": len(answers.lost),
        "reasons": dict(Counter(answers.lost)),
        "refused": answers.refused,
        "answered p50 ms": answers.percentile(50),
        "answered p99 ms": answers.percentile(99),
        "resident MB": memory,
        "memory, last of first": memory[-1] / memory[0],
    }


RUNS: dict[str, Callable[[Path, list[bytes], argparse.Namespace], Awaitable[Any]]] = {
    "overload": overload,
    "stop": stop,
    "reload": reload,
    "rolling": rolling,
    "soak": soak,
}


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--overload-seconds", type=float, default=120)
    parser.add_argument("--soak-minutes", type=float, default=30)
    options = parser.parse_args()
    record = json.loads(RESULT_FILE.read_text(encoding="utf-8")) if RESULT_FILE.exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        file = write_texts(Path(scratch), options.bundle)["short"]
        texts = json.loads(file.read_text(encoding="utf-8"))
    bodies = [json.dumps({"text": text}).encode() for text in texts]
    for part in options.parts:
        say(part)
        result = asyncio.run(RUNS[part](options.bundle.absolute(), bodies, options))
        record[part] = result
        print(f"\n| {part} | |\n|---|---|")
        for name, value in result.items():
            print(f"| {name} | {round(value, 3) if isinstance(value, float) else value} |")
        record |= {"machine": machine_facts(), "versions": library_versions()}
        RESULT_FILE.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
