"""The server against the raw loop that only tokenizes and runs the model, and against its peers.

    python benchmarks/server.py --bundle fp32=DIR --bundle int8=DIR
        [--rounds 5] [--seconds 3] [--peer NAME=PYTHON ...]

What counts is CPU time per answered request of the whole server (all its processes), which a busy
machine blurs less than wall time: raw loop's / server's, 1.00 when serving costs nothing. Raw loop
(server_raw.py: one thread, one text per run) and server take turns, in an order that changes every
round, each slice of server time between two slices of raw loop; medians of the rounds.

Load comes from wrk (https://github.com/wg/wrk, in most distributions), one thread, keep-alive, each
connection waiting for its answer. Short texts are sentences of SST-2 (FACTORY_REAL_DATA) of 18 to
25 tokens; long ones are many sentences in one, cut by the server at 128 tokens or the bundle's
max_length. The server has one inference thread. `added` is wrk's median latency with one connection
less the raw loop's median.

A peer is a server of server_peers/ in a virtual environment of its own, given by its
interpreter. Prints tables and writes server.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from server_texts import free_port, write_texts

from factory.runtime.environment import library_versions, machine_facts
from factory.runtime.progress import say

HERE = Path(__file__).parent
RESULT_FILE = HERE / "server.json"
CONCURRENCIES = (1, 8, 32, 128)
OURS = "this server"


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: where it answers and what its requests look like."""

    name: str
    process: psutil.Process
    url: str
    bodies: dict[str, Path]  # by kind of text: one JSON body per line

    def cpu_seconds(self) -> float:
        """CPU time of all its processes so far."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(sum(member.cpu_times()[:2]) for member in family)


@dataclass(slots=True)
class Slices:
    """What the rounds of one cell measured."""

    ratios: list[float] = field(default_factory=list)
    wall_ratios: list[float] = field(default_factory=list)
    added_ms: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    requests: int = 0
    failed: int = 0


class RawLoop:
    """The raw loop of one bundle and one kind of text, in a process of its own."""

    def __init__(self, bundle: Path, texts: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "server_raw.py"), str(bundle), str(texts)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, seconds: float) -> dict[str, float]:
        """Loop for some seconds: texts, cpu_seconds, wall_seconds, p50_ms."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        result: dict[str, float] = json.loads(self.process.stdout.readline())
        return result


def main() -> None:
    """Measure, print and record."""
    arguments = parse_arguments()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed; it makes the load (Debian: apt-get install wrk)")
    bundles = {name: Path(path) for name, _, path in map(split_at_equals, arguments.bundle)}
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, bundle in bundles.items():
            texts = write_texts(Path(scratch), bundle)
            results[name] = {}
            with ExitStack() as stack:
                loops = {kind: RawLoop(bundle, path) for kind, path in texts.items()}
                for loop in loops.values():
                    stack.callback(loop.process.kill)
                servers = [stack.enter_context(our_server(bundle, texts, Path(scratch)))]
                for peer, _, python in map(split_at_equals, arguments.peer):
                    servers.append(
                        stack.enter_context(
                            peer_server(peer, Path(python).parent, bundle, texts, Path(scratch))
                        )
                    )
                results[name] = measure(servers, loops, arguments)
            print(table(name, results[name]), flush=True)
    record = {
        "bundles": results,
        "seconds": arguments.seconds,
        "rounds": arguments.rounds,
        "machine": machine_facts(),
        "versions": library_versions(),
    }
    RESULT_FILE.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", action="append", required=True, metavar="NAME=DIR")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one slice")
    parser.add_argument("--kinds", nargs="+", choices=["short", "long"], default=["short", "long"])
    parser.add_argument("--concurrency", nargs="+", type=int, default=list(CONCURRENCIES))
    return parser.parse_args()


def split_at_equals(text: str) -> tuple[str, str, str]:
    return text.partition("=")


@contextmanager
def our_server(bundle: Path, texts: dict[str, Path], scratch: Path) -> Iterator[Server]:
    """`python -m serving` with one inference thread."""
    port = free_port()
    command = [sys.executable, "-m", "serving", str(bundle), "--port", str(port)]
    bodies = write_bodies(scratch, texts, OURS, lambda text: {"text": text})
    with started(OURS, command, f"http://127.0.0.1:{port}", "/ready", "/predict", bodies) as server:
        yield server


@contextmanager
def peer_server(
    name: str, programs: Path, bundle: Path, texts: dict[str, Path], scratch: Path
) -> Iterator[Server]:
    """Another server of the same model, each in the setting that is its fastest here."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with started(
        name,
        peer_command(name, programs, bundle, port, scratch),
        url,
        {"mlserver": "/v2/health/ready", "bentoml": "/readyz"}.get(name, "/health"),
        {"mlserver": "/v2/models/peer/infer", "infinity": "/classify"}.get(name, "/predict"),
        write_bodies(scratch, texts, name, PEER_BODIES[name]),
        {"PEER_BUNDLE": str(bundle), "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"},
    ) as server:
        yield server


PEER_BODIES: dict[str, Callable[[str], dict[str, Any]]] = {
    "litserve": lambda text: {"text": text},
    "bentoml": lambda text: {"text": [text]},
    "mlserver": lambda text: {
        "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}]
    },
    "infinity": lambda text: {"model": "peer", "input": [text]},
}


def peer_command(
    name: str, programs: Path, bundle: Path, port: int, scratch: Path
) -> Sequence[str]:
    """How a peer is started; infinity runs the model by an engine of its own, from a folder."""
    if name in ("litserve", "mlserver"):
        file = HERE / "server_peers" / f"{name}_peer.py"
        return [str(programs / "python"), str(file), str(bundle), str(port)]
    if name == "bentoml":
        folder = str(HERE / "server_peers")
        return [
            *(str(programs / "bentoml"), "serve", "bentoml_peer:Peer", "--working-dir", folder),
            *("--host", "127.0.0.1", "--port", str(port)),
        ]
    folder = scratch / f"{bundle.name}-infinity"
    folder.mkdir()
    for file in bundle.glob("*.*"):
        shutil.copy(file, folder)
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    shutil.copy(bundle / manifest["model"]["file"], folder / "model.onnx")
    return [
        *(str(programs / "infinity_emb"), "v2", "--model-id", str(folder), "--engine", "optimum"),
        *("--served-model-name", "peer", "--device", "cpu", "--no-model-warmup"),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]


@contextmanager
def started(
    name: str,
    command: Sequence[str],
    url: str,
    ready: str,
    path: str,
    bodies: dict[str, Path],
    variables: dict[str, str] | None = None,
) -> Iterator[Server]:
    """A server process from its first 200 to its end."""
    environment = {key: value for key, value in os.environ.items() if key[:8] != "SERVING_"}
    environment |= {"SERVING_THREADS": "1", **(variables or {})}
    if name == OURS:
        environment["PYTHONPATH"] = str(HERE.parent)
    process = psutil.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until_ready(url + ready, process)
        yield Server(name, process, url + path, bodies)
    finally:
        for member in [*process.children(recursive=True), process]:
            member.kill()
        process.wait()


def wait_until_ready(url: str, process: psutil.Popen) -> None:
    """Return at the first 200."""
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    sys.exit(f"{' '.join(process.args)} never answered {url}")


def write_bodies(
    scratch: Path, texts: dict[str, Path], name: str, body: Callable[[str], dict[str, Any]]
) -> dict[str, Path]:
    """Per kind of text a file with one JSON body per text and line."""
    files = {}
    for kind, path in texts.items():
        files[kind] = scratch / f"{path.stem}-{name.replace(' ', '-')}.bodies"
        bodies = [json.dumps(body(text)) for text in json.loads(path.read_text(encoding="utf-8"))]
        files[kind].write_text("\n".join(bodies) + "\n", encoding="utf-8")
    return files


def measure(
    servers: Sequence[Server], loops: dict[str, RawLoop], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Every server, kind of text and concurrency, in turns."""
    cells = [
        (server, kind, concurrency)
        for kind in arguments.kinds
        for concurrency in arguments.concurrency
        for server in servers
    ]
    slices = {(server.name, kind, concurrency): Slices() for server, kind, concurrency in cells}
    for server, kind, concurrency in cells:
        load(server, kind, concurrency, 0.5)
    for number in range(arguments.rounds):
        say(f"round {number + 1} of {arguments.rounds}")
        shift = number * len(cells) // arguments.rounds
        for server, kind, concurrency in cells[shift:] + cells[:shift]:
            before = loops[kind].run(arguments.seconds / 2)
            cpu_before = server.cpu_seconds()
            answered = load(server, kind, concurrency, arguments.seconds)
            cpu = server.cpu_seconds() - cpu_before
            after = loops[kind].run(arguments.seconds / 2)
            raw_texts = before["texts"] + after["texts"]
            good = answered["requests"] - answered["failed"]
            cell = slices[server.name, kind, concurrency]
            raw_cpu = (before["cpu_seconds"] + after["cpu_seconds"]) / raw_texts
            raw_wall = (before["wall_seconds"] + after["wall_seconds"]) / raw_texts
            cell.ratios.append(raw_cpu / (cpu / good))
            cell.wall_ratios.append(raw_wall / (answered["seconds"] / good))
            cell.added_ms.append(answered["p50_ms"] - (before["p50_ms"] + after["p50_ms"]) / 2)
            cell.p50_ms.append(answered["p50_ms"])
            cell.p99_ms.append(answered["p99_ms"])
            cell.requests += int(answered["requests"])
            cell.failed += int(answered["failed"])
    return {
        server.name: {
            kind: {
                str(concurrency): summary(slices[server.name, kind, concurrency])
                for concurrency in arguments.concurrency
            }
            for kind in arguments.kinds
        }
        for server in servers
    }


def load(server: Server, kind: str, concurrency: int, seconds: float) -> dict[str, float]:
    """Requests from wrk for some seconds."""
    command = ["wrk", "-t1", f"-c{concurrency}", f"-d{seconds:.0f}s" if seconds >= 1 else "-d1s"]
    command += ["--timeout", "30s", "-s", str(HERE / "server_load.lua"), server.url]
    command += ["--", str(server.bodies[kind])]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, float] = json.loads(output.splitlines()[-1])
    return result


def summary(cell: Slices) -> dict[str, Any]:
    """Medians, with the range of the ratio."""
    return {
        "cpu_ratio": statistics.median(cell.ratios),
        "cpu_ratio_range": [min(cell.ratios), max(cell.ratios)],
        "wall_ratio": statistics.median(cell.wall_ratios),
        "added_ms": statistics.median(cell.added_ms),
        "p50_ms": statistics.median(cell.p50_ms),
        "p99_ms": statistics.median(cell.p99_ms),
        "requests": cell.requests,
        "failed": cell.failed,
    }


def table(bundle: str, results: dict[str, Any]) -> str:
    """One row per server, kind of text and concurrency."""
    lines = [
        f"| {bundle} | texts | clients | raw CPU / served CPU | range | raw wall / served wall "
        "| p50 | p99 | added at p50 | failed |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for server, kinds in results.items():
        for kind, cells in kinds.items():
            for concurrency, cell in cells.items():
                low, high = cell["cpu_ratio_range"]
                added = f"{cell['added_ms']:.2f} ms" if concurrency == "1" else ""
                lines.append(
                    f"| {server} | {kind} | {concurrency} | {cell['cpu_ratio']:.2f} "
                    f"| {low:.2f} to {high:.2f} | {cell['wall_ratio']:.2f} "
                    f"| {cell['p50_ms']:.1f} ms | {cell['p99_ms']:.1f} ms "
                    f"| {added} | {cell['failed']} of {cell['requests']} |"
                )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
