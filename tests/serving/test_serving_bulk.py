"""Streams of JSON lines over real sockets: order, bounds, other clients, lines that are wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from serving.app import create_app
from serving.bulk import LINES_AHEAD, make_room, split_lines
from serving.predictor import Prediction, Predictor
from serving.settings import Settings

MakeBundle = Callable[..., Path]
HEAD = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n"


class Stream:
    """One connection that sends lines in chunks of its own making and reads lines back."""

    def __init__(self, url: str, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(20)
        self.socket.connect(("127.0.0.1", int(url.rsplit(":", 1)[1])))
        self.socket.sendall(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
        self._file = self.socket.makefile("rb")
        self._rest = b""
        self.status = 0

    def send(self, *requests: Any) -> None:
        """Send requests as lines, in one chunk."""
        self.send_bytes(b"".join(json.dumps(item).encode() + b"\n" for item in requests))

    def send_bytes(self, content: bytes) -> None:
        """Send one chunk."""
        self.socket.sendall(b"%x\r\n%b\r\n" % (len(content), content))

    def end(self) -> None:
        """Say that no more comes."""
        self.socket.sendall(b"0\r\n\r\n")

    def lines(self) -> Iterator[Any]:
        """Answers as they come, until the stream's end; an EOFError if it is cut off."""
        if not self.status:
            self.status = int(self._file.readline().split()[1])
            while self._file.readline() != b"\r\n":
                pass
        while size := int(self._file.readline() or self._cut_off(), 16):
            self._rest += self._file.read(size)
            self._file.readline()
            *whole, self._rest = self._rest.split(b"\n")
            yield from map(json.loads, whole)
        assert self._rest == b""

    def close(self) -> None:
        """Leave, at once."""
        self._file.close()
        self.socket.close()

    @staticmethod
    def _cut_off() -> bytes:
        raise EOFError


@contextmanager
def serving(predictor: Predictor, **settings: Any) -> Iterator[str]:
    """The application on a real port, in a thread; gives its address."""
    app = create_app(predictor, Settings(**settings))
    # the grace period only matters to a test that fails with a connection open
    configuration = uvicorn.Config(
        app, port=0, log_level="critical", ws="none", timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(configuration)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def url(predictor: Predictor) -> Iterator[str]:
    """A server with the default settings."""
    with serving(predictor) as address:
        yield address


class Counted:
    """Counts the texts a predictor answers, and can hold them back."""

    def __init__(self, predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
        self.texts = 0
        self.go_on = threading.Event()
        self.go_on.set()
        original = predictor.answer

        def counted(batch: Any) -> list[Prediction]:
            self.texts += len(batch)
            assert self.go_on.wait(20)
            return original(batch)

        monkeypatch.setattr(predictor, "answer", counted)

    def settle(self) -> int:
        """Texts answered once no more are."""
        before = -1
        while self.texts != before:
            before = self.texts
            time.sleep(0.15)
        return before


def post(url: str, content: bytes) -> httpx.Response:
    """A small stream, sent whole."""
    headers = {"content-type": "application/x-ndjson; charset=utf-8"}
    return httpx.post(f"{url}/predict", content=content, headers=headers, timeout=20)


def answers(response: httpx.Response) -> list[Any]:
    """The lines of a 200."""
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.text.endswith("\n") or not response.text
    return [json.loads(line) for line in response.text.splitlines()]


def test_lines_are_answered_as_single_requests_are(url: str) -> None:
    requests = [
        {"text": "a good film", "id": 7},
        {"text": "bad", "top_k": 1, "id": "b"},
        {"text": "not very fine", "raw_scores": True, "id": None},
        {"text": "the film was good " * 9},
    ]
    got = answers(post(url, b"".join(json.dumps(item).encode() + b"\n" for item in requests)))
    for request, answer in zip(requests, got, strict=True):
        identity = {"id": request.pop("id")} if "id" in request else {}
        single = httpx.post(f"{url}/predict", json=request).json()["predictions"][0]
        assert answer == identity | single
    assert got[3]["truncated"] is True


def test_pairs(make_bundle: MakeBundle) -> None:
    with serving(Predictor.open(make_bundle(text_pair=True))) as url:
        first, second = answers(post(url, b'{"pair": ["a", "b"]}\n{"text": "a"}\n'))
    assert first["tokens"] == 5
    assert second["error"].endswith("takes pair or pairs, not text")


def test_twenty_thousand_lines_in_order_while_they_are_sent(
    url: str, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(predictor, monkeypatch)
    stream = Stream(url)
    total, block = 20_000, 500
    words = ("good", "bad film", "a not very fine film, was it not?")

    def send() -> None:
        for start in range(0, total, block):
            stream.send(*({"text": words[i % 3], "id": i} for i in range(start, start + block)))
        stream.end()

    sender = threading.Thread(target=send)
    sender.start()
    seen = 0
    tokens = {3: 0, 4: 1, 13: 2}
    for answer in stream.lines():
        assert answer["id"] == seen
        assert tokens[answer["tokens"]] == seen % 3
        seen += 1
    sender.join()
    assert (seen, counted.texts) == (total, total)
    stream.close()


def test_answers_come_before_the_end_is_sent(url: str) -> None:
    stream = Stream(url)
    stream.send({"text": "good"})
    lines = stream.lines()
    assert next(lines)["tokens"] == 3
    stream.send({"text": "a good film"})
    assert next(lines)["tokens"] == 5
    stream.end()
    assert list(lines) == []
    stream.close()


def test_no_more_is_read_than_the_client_takes(
    make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    # long answers fill the buffers between server and client soon
    predictor = Predictor.open(make_bundle(labels=["n" * 5000, "p" * 5000]))
    counted = Counted(predictor, monkeypatch)
    monkeypatch.setattr("serving.bulk.STALL_SECONDS", 1.0)
    with serving(predictor) as url:
        stream = Stream(url, receive_buffer=4096)
        stream.socket.settimeout(0.5)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 50_000:
                stream.send(*({"text": "good", "id": "x" * 250} for _ in range(500)))
                sent += 500
        answered = counted.settle()
        # what fits into the buffers of both sockets, and no more; the rest waits at the client
        assert LINES_AHEAD < answered < sent < 50_000
        assert httpx.post(f"{url}/predict", json={"text": "good"}).status_code == 200
        time.sleep(1.1)
        stream.socket.settimeout(20)
        with pytest.raises((EOFError, ConnectionError)):  # given up, visibly
            list(stream.lines())
        stream.close()


def test_at_most_the_window_waits_and_others_are_served(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(predictor, monkeypatch)
    with serving(predictor, queue_limit=33, max_texts=16) as url:
        counted.go_on.clear()
        streams = [Stream(url) for _ in range(3)]
        for stream in streams:
            stream.send(*({"text": "good"} for _ in range(200)))
            stream.end()
        time.sleep(0.3)
        # three streams hold 16 of 33 places together, so a full request still fits
        statuses: list[int] = []
        client = threading.Thread(
            target=lambda: statuses.append(
                httpx.post(f"{url}/predict", json={"texts": ["bad"] * 16}, timeout=20).status_code
            )
        )
        client.start()
        time.sleep(0.6)  # longer than a request is held that finds the queue full
        counted.go_on.set()
        client.join()
        assert statuses == [200]
        assert [sum(1 for _ in stream.lines()) for stream in streams] == [200] * 3
        for stream in streams:
            stream.close()


def test_a_full_queue_makes_a_stream_wait(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(predictor, monkeypatch)
    with serving(predictor, queue_limit=8, max_texts=8) as url:
        counted.go_on.clear()
        others = threading.Thread(
            target=lambda: httpx.post(f"{url}/predict", json={"texts": ["bad"] * 8}, timeout=20)
        )
        others.start()
        time.sleep(0.2)
        stream = Stream(url)
        stream.send(*({"text": "good"} for _ in range(20)))
        stream.end()
        time.sleep(0.4)
        counted.go_on.set()
        assert [answer["tokens"] for answer in stream.lines()] == [3] * 20
        others.join()
        stream.close()


def test_a_client_that_leaves_stops_the_work(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(predictor, monkeypatch)
    with serving(predictor) as url:
        for whole in (False, True):
            counted.go_on.clear()
            before = counted.texts
            stream = Stream(url)
            stream.send(*({"text": "good", "id": "x" * 200} for _ in range(6000)))
            if whole:
                stream.end()
            time.sleep(0.2)
            stream.close()
            counted.go_on.set()
            # no more is run than one read from the socket brought: 256 KB at most
            assert counted.settle() - before < 1500
        assert httpx.post(f"{url}/predict", json={"text": "good"}).status_code == 200


def test_a_client_that_leaves_after_all_was_read(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(predictor, monkeypatch)
    with serving(predictor, threads=1) as url:
        counted.go_on.clear()
        stream = Stream(url)
        stream.send(*({"text": "good"} for _ in range(60)))
        stream.end()
        time.sleep(0.2)
        stream.close()
        time.sleep(0.2)
        counted.go_on.set()
        # what ran when the client left, at most all there was room for
        assert counted.settle() <= 32


def test_wrong_lines_do_not_stop_the_stream(predictor: Predictor) -> None:
    content = b"\n".join(
        [
            b'{"text": "good", "id": 1}',
            b"",
            b"not json",
            b"  \r",
            b'{"text": "good", "colour": 1}',
            b'{"text": " ", "id": "empty"}',
            b'{"texts": ["good"]}',
            b'{"inputs": "good"}',
            b'{"text": "' + b"x" * 300 + b'"}',
            b'{"text": "poison", "id": 9}',
            b'{"text": "nanny"}',
            b'{"text": "good\xff"}',
            b'{"text": "' + b"good " * 20 + b'", "truncate": false}',
            b'{"text": "good", "id": "' + b"i" * 257 + b'"}',
            b'{"text": "\\ud800"}',
            b'{"text": "a good film"}',
        ]
    )
    with serving(predictor, max_body_bytes=290) as url:
        got = answers(post(url, content))
    assert got[0]["id"] == 1
    assert got[0]["label"]
    wrong = {answer["line"]: answer["error_type"] for answer in got[1:-1]}
    assert wrong == {
        3: "malformed",
        5: "validation",
        6: "validation",
        7: "validation",
        8: "validation",
        9: "too_large",
        10: "backend",
        11: "backend",
        12: "malformed",
        13: "validation",
        14: "validation",
        15: "malformed",
    }
    by_line = {answer.get("line"): answer for answer in got}
    assert by_line[6]["id"] == "empty"
    assert by_line[10]["id"] == 9
    assert by_line[9]["error"] == "the line has more than 290 bytes"
    assert got[-1]["tokens"] == 5  # its newline is missing


def test_a_long_line_is_not_kept(predictor: Predictor) -> None:
    with serving(predictor, max_body_bytes=1000) as url:
        stream = Stream(url)
        for _ in range(200):
            stream.send_bytes(b"x" * 10_000)
        stream.send_bytes(b'\n{"text": "good"}\n')
        stream.end()
        first, second = stream.lines()
        stream.close()
    assert first["error_type"] == "too_large"
    assert second["tokens"] == 3


@pytest.mark.parametrize("content", [b"", b"\n \n\r\n"])
def test_nothing_in_nothing_out(url: str, content: bytes) -> None:
    assert answers(post(url, content)) == []


def test_refusals_before_the_stream(url: str) -> None:
    headers = {"content-type": "application/x-ndjson", "content-encoding": "gzip"}
    response = httpx.post(f"{url}/predict", content=b"x", headers=headers)
    assert response.status_code == 415


def test_the_connection_is_usable_afterwards(url: str) -> None:
    with httpx.Client(base_url=url) as client:
        headers = {"content-type": "application/x-ndjson"}
        for _ in range(2):
            response = client.post("/predict", content=b'{"text": "good"}', headers=headers)
            assert len(answers(response)) == 1
            assert client.post("/predict", json={"text": "good"}).status_code == 200


@given(st.data())
def test_splitting_does_not_depend_on_the_chunks(data: st.DataObject) -> None:
    body = data.draw(st.lists(st.sampled_from([b"a", b" ", b"\n", b"bcd", b"\r\n"])).map(b"".join))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=5)))
    chunks = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]

    async def give() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def collect() -> list[tuple[int, bytes | None]]:
        return [line async for line in split_lines(give(), 4)]

    expected = [
        (number, line if len(line) <= 4 else None)
        for number, line in enumerate(body.split(b"\n"), start=1)
        if line.strip()
    ]
    assert asyncio.run(collect()) == expected


@pytest.mark.parametrize(
    ("threads", "limit", "texts"), [(1, 256, 32), (8, 256, 128), (1, 32, 16), (4, 1, 1)]
)
def test_room_leaves_half_of_the_queue(threads: int, limit: int, texts: int) -> None:
    settings = Settings(threads=threads, queue_limit=limit, max_texts=1)
    assert make_room(settings)._value == texts
