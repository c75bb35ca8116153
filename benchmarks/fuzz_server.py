"""Broken HTTP for the server: nothing may answer with a fault of the server, hang, or break it.

    python benchmarks/fuzz_server.py BUNDLE [--inputs 100000] [--seed 0]

Connections to `python -m serving`, 256 at a time, each with one broken input: a good request of one
of the protocols with bytes changed, cut off, doubled, or with a lie about its length; bad chunks;
heads without an end; binary bodies of the Open Inference Protocol; random bytes. A client sends
and reads until the server closes or has answered. Counted are the statuses. A fault is a status of
500 or above (503 and 504 say that much waits, and are counted as such), an answer that does not
come within 15 seconds (75 for a stream of lines: an unfinished one is given up after 60), or a
server that afterwards no longer answers a good request as before; any of them makes the exit
status 1. Prints a table and writes fuzz_server.json.

The OpenAPI document is tried by schemathesis, in an environment of its own:

    schemathesis run http://127.0.0.1:PORT/openapi.json
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
from server_texts import free_port

from factory.runtime.environment import library_versions, machine_facts
from factory.runtime.progress import say

RESULT_FILE = Path(__file__).with_suffix(".json")
AT_ONCE = 256
PATIENCE_SECONDS = 15.0
STREAM_SECONDS = 75.0
IDLE_SECONDS = 0.05
OVERLOAD = (b"503", b"504")
SAME = "a good request is answered as before"
STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
FINAL = re.compile(rb"HTTP/1\.1 [2-5]\d\d")
GOOD = b'{"text": "a good film"}'
BODIES = [
    GOOD,
    b'{"texts": ["one", "two"], "top_k": 1}',
    b'{"inputs": "a text"}',
    b'{"inputs": [["a"], ["b"]], "raw_scores": true}',
    b'{"inputs": ["a", "b"], "parameters": {"top_k": 1}}',
    b'{"id": "1", "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}]}',
    b'{"inputs": [{"name": "input_ids", "shape": [1, 3], "datatype": "INT64", "data": [1, 2, 3]}]}',
    b'{"text": "one", "id": 1}\n{"text": "two"}\n',
    b"[" * 3000,
    b'{"text": "\xff\xfe"}',
    b'{"text": "\\ud800"}',
    b"",
]
BINARY_HEAD = (
    b'{"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", '
    b'"parameters": {"binary_data_size": 9}}]}'
)
METHODS = [b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"G\x00T", b"", b"PRI", b"CONNECT"]
PATHS = [
    b"/predict",
    b"/",
    b"/v2",
    b"/v2/health/ready",
    b"/v2/models/MODEL/infer",
    b"/v2/models/MODEL/versions/1/infer",
    b"/v2/models/%00/infer",
    b"/tokenize",
    b"/model",
    b"/openapi.json",
    b"/docs",
    b"/metrics",
    b"/static/../settings.py",
    b"/static/%2e%2e%2fapp.py",
    b"//predict?x=%zz",
    b"*",
    b"http://elsewhere/predict",
]
SANE = [
    b"Content-Type: application/json",
    b"Content-Type: application/x-ndjson",
    b"Content-Type: text/html",
    b"Content-Encoding: gzip",
    b"Expect: 100-continue",
    b"Connection: close",
    b"Upgrade: h2c",
    b"Inference-Header-Content-Length: 7",
    b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    b"X-Request-Id: a b",
]
HEADERS = [
    b"Content-Type: application/json",
    b"Content-Type: application/x-ndjson",
    b"Content-Type: application/octet-stream",
    b"Content-Type: \xff\xfe",
    b"Content-Encoding: gzip",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: chunked, gzip",
    b"Expect: 100-continue",
    b"Connection: close",
    b"Connection: Upgrade, HTTP2-Settings",
    b"Upgrade: h2c",
    b"Upgrade: websocket",
    b"Inference-Header-Content-Length: 7",
    b"Inference-Header-Content-Length: -1",
    b"Inference-Header-Content-Length: 99999999999999999999",
    b"Authorization: Bearer \xe9",
    b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    b"traceparent: 00-zz",
    b"X-Request-Id: " + b"a" * 300,
    b"X-Request-Id: a\tb",
    b": no name",
    b"no colon",
    b" folded",
    b"Host: a\x00b",
]


def main() -> None:
    """Fuzz, print and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    manifest = json.loads((options.bundle / "manifest.json").read_text(encoding="utf-8"))
    port, model = free_port(), manifest["name"].encode()
    inherited = {key: value for key, value in os.environ.items() if key[:8] != "SERVING_"}
    variables = {"PYTHONPATH": str(Path(__file__).parents[1]), "SERVING_READ_SECONDS": "1"}
    server = psutil.Popen(
        [sys.executable, "-m", "serving", str(options.bundle), "--port", str(port)],
        env=inherited | variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        record = asyncio.run(fuzz(server, port, model, options.inputs, options.seed))
    finally:
        server.kill()
        server.wait()
    print("| | |\n|---|---|")
    for name, value in record.items():
        print(f"| {name} | {value} |")
    record |= {"machine": machine_facts(), "versions": library_versions()}
    RESULT_FILE.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if record["faults (5xx but 503 and 504)"] or record["hung"] or not record[SAME]:
        sys.exit("the server failed")


async def fuzz(
    server: psutil.Popen, port: int, model: bytes, inputs: int, seed: int
) -> dict[str, object]:
    """Send so many inputs; what came back."""
    chance = random.Random(seed)
    before = b""
    while not before.startswith(b"HTTP/1.1 200"):
        await asyncio.sleep(0.2)
        with contextlib.suppress(OSError):
            before = await exchange(port, good_request())
    memory = server.memory_info().rss / 1e6
    statuses: Counter[str] = Counter()
    hung: list[str] = []
    faults: list[str] = []
    begin = time.monotonic()
    waiting = iter(range(inputs))

    async def client() -> None:
        for number in waiting:
            content = broken_request(chance).replace(b"MODEL", model)
            try:
                answer = await exchange(port, content)
            except TimeoutError:
                hung.append(repr(content[:500]))
                continue
            except OSError:
                answer = b""
            found = STATUS.findall(answer)
            statuses.update(status.decode() for status in found)
            if any(status[:1] == b"5" and status not in OVERLOAD for status in found):
                faults.append(repr(content[:500]))
            if not found:
                statuses["closed without an answer"] += 1
            if number % 10_000 == 0:
                say(f"{number} of {inputs}")

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    after = await exchange(port, good_request())
    return {
        "bundle": model.decode(),
        "inputs": inputs,
        "seed": seed,
        "seconds": time.monotonic() - begin,
        "statuses": dict(sorted(statuses.items())),
        "faults (5xx but 503 and 504)": len(faults),
        "first faults": faults[:3],
        "hung": len(hung),
        "first that hung": hung[:3],
        SAME: body_of(before) == body_of(after) != b"",
        "resident MB before": memory,
        "resident MB after": server.memory_info().rss / 1e6,
    }


async def exchange(port: int, content: bytes) -> bytes:
    """Send everything, read until the server closes or has answered and says no more."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        writer.write(content)
        while True:
            patience = STREAM_SECONDS if b"x-ndjson" in content else PATIENCE_SECONDS
            if FINAL.search(answer):
                patience = IDLE_SECONDS
            chunk = await asyncio.wait_for(reader.read(65536), patience)
            if not chunk:
                return answer
            answer += chunk
    except TimeoutError:
        if not FINAL.search(answer):
            raise
        return answer
    except OSError:  # reset; what came before counts
        return answer
    finally:
        writer.close()


def body_of(answer: bytes) -> bytes:
    """What stands behind the head."""
    return answer.partition(b"\r\n\r\n")[2]


def request(method: bytes, path: bytes, headers: list[bytes], body: bytes) -> bytes:
    """The bytes of a request."""
    return b"\r\n".join([method + b" " + path + b" HTTP/1.1", *headers, b"", body])


def good_request() -> bytes:
    """One that is answered with 200 on a connection of its own."""
    head = [b"Host: a", b"Connection: close", b"Content-Length: %d" % len(GOOD)]
    return request(b"POST", b"/predict", head, GOOD)


def broken_request(chance: random.Random) -> bytes:
    """A request that is wrong in one way or several; now and then none."""
    kind = chance.random()
    if kind < 0.03:
        return chance.randbytes(chance.randrange(600))
    body = chance.choice(BODIES)
    method, path = b"POST", chance.choice(PATHS[:5])
    if kind < 0.25:
        method, path = chance.choice(METHODS), chance.choice(PATHS)
    some = SANE if chance.random() < 0.9 else HEADERS
    headers = [b"Host: a", *chance.sample(some, chance.choice([0, 0, 0, 1, 1, 2]))]
    if chance.random() < 0.1:
        rest = chance.randbytes(chance.randrange(20))
        body = BINARY_HEAD + rest
        headers.append(
            b"Inference-Header-Content-Length: %d" % chance.choice([len(BINARY_HEAD), 9])
        )
        path = PATHS[4]
    lengths = [len(body)] * 20 + [0, 1, len(body) + 5, 10**12, -1]
    if chance.random() < 0.75:
        headers.append(b"Content-Length: %d" % chance.choice(lengths))
    else:
        headers.append(b"Transfer-Encoding: chunked")
        size = chance.choice([b"%x" % len(body), b"%x" % (len(body) + 9), b"zz", b"-1", b"f" * 20])
        body = (
            size + b"\r\n" + body + b"\r\n" + chance.choice([b"0\r\n\r\n", b"0\r\n", b"", b"\r\n"])
        )
    if chance.random() < 0.02:
        headers.append(b"X-Long: " + b"a" * chance.choice([10_000, 20_000, 100_000]))
    content = bytearray(request(method, path, headers, body))
    for _ in range(chance.choice([0] * 9 + [1, 3, 20])):
        if content:
            content[chance.randrange(len(content))] = chance.randrange(256)
    if chance.random() < 0.15:
        del content[chance.randrange(len(content) + 1) :]
    return bytes(content) * chance.choice([1, 1, 1, 1, 2, 40])


if __name__ == "__main__":
    main()
