"""Hostile and clumsy clients over raw sockets: each gets an answer or is cut off, in time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from raw_client import BODY, HEAD, PREDICT, Client
from server_thread import serving

from serving.predictor import Predictor
from serving.settings import Settings

QUICK = Settings(
    threads=1,
    read_seconds=0.4,
    keep_alive_seconds=1,
    max_header_bytes=2000,
    max_body_bytes=5000,
    max_connections=4,
    stop_seconds=5,
)


@pytest.fixture
def port(predictor: Predictor) -> Iterator[int]:
    """A server with small limits."""
    with serving(predictor, QUICK) as number:
        yield number


def test_a_request_in_pieces_is_answered(port: int) -> None:
    client = Client(port)
    for start in range(0, len(PREDICT), 20):
        client.send(PREDICT[start : start + 20])
        time.sleep(0.01)
    assert client.answer()[0] == 200
    assert client.send(PREDICT).answer()[0] == 200


@pytest.mark.parametrize("sent", [b"", b"POST /pre", HEAD, HEAD + b"X-Long: "])
def test_a_head_that_does_not_end_is_408(port: int, sent: bytes) -> None:
    begin = time.monotonic()
    assert Client(port).send(sent).refusal() == 408
    assert 0.3 < time.monotonic() - begin < 3


def test_a_head_that_trickles_is_408_also_on_a_used_connection(port: int) -> None:
    client = Client(port).send(PREDICT)
    assert client.answer()[0] == 200
    begin = time.monotonic()
    client.send(HEAD)
    for _ in range(3):
        time.sleep(0.1)
        client.send(b"X-Another: 1\r\n")
    assert client.refusal() == 408
    assert time.monotonic() - begin < 3


@pytest.mark.parametrize("framing", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
def test_a_body_that_does_not_end_is_408(port: int, framing: bytes) -> None:
    begin = time.monotonic()
    assert Client(port).send(HEAD + framing + b"\r\n\r\n").refusal() == 408
    assert 0.3 < time.monotonic() - begin < 3


def test_a_body_that_trickles_is_408(port: int) -> None:
    client = Client(port).send(HEAD + b"Content-Length: 100\r\n\r\n")
    begin = time.monotonic()
    for _ in range(3):
        time.sleep(0.1)
        client.send(b" ")
    assert client.refusal() == 408
    assert time.monotonic() - begin < 3


def test_a_refused_body_that_trickles_is_not_read_for_ever(port: int) -> None:
    head = HEAD + b"Content-Encoding: gzip\r\nContent-Length: 1000\r\n\r\n"
    client = Client(port).send(head)
    assert client.answer()[0] == 415
    begin = time.monotonic()
    with pytest.raises(ConnectionError):  # noqa: PT012 # sending to who does not listen any more
        for _ in range(100):
            client.send(b" ")
            time.sleep(0.05)
    assert time.monotonic() - begin < 3


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health?" + b"x" * 3000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        HEAD + b"X-Long: " + b"x" * 3000 + b"\r\n\r\n",
        HEAD + b"".join(b"X-%d: 1\r\n" % number for number in range(300)) + b"\r\n",
    ],
)
def test_a_head_too_large_is_431(port: int, head: bytes) -> None:
    assert Client(port).send(head).refusal() == 431
    slowly = Client(port)
    for start in range(0, len(head), 1500):
        slowly.send(head[start : start + 1500])
        time.sleep(0.05)
    assert slowly.refusal() == 431


def test_a_head_just_within_its_limit_beside_a_body(port: int) -> None:
    long = HEAD + b"Content-Length: 4000\r\nX-Long: " + b"x" * 1850 + b"\r\n\r\n"
    assert Client(port).send(long + BODY.ljust(4000)).answer()[0] == 200


@pytest.mark.parametrize("start", [b"GET /", HEAD, HEAD + b"X: "])
def test_a_head_without_end_is_not_kept(port: int, start: bytes) -> None:
    client = Client(port).send(start)
    with pytest.raises(ConnectionError):  # noqa: PT012 # answered long before, and closed
        for _ in range(1000):
            client.send(b"x" * 10_000)


@pytest.mark.parametrize("more", [b"X-Trailer: " + b"x" * 20_000, b"X: 1\r\n" * 4000])
def test_endless_trailers_end_the_connection(port: int, more: bytes) -> None:
    chunk = b"%x\r\n%s\r\n0\r\n" % (len(BODY), BODY)
    client = Client(port).send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk)
    time.sleep(0.05)
    client.send(more)
    assert client.answer()[0] in (0, 431)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"hello\r\n\r\n",
        b"GET /caf\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n",
        HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
    ],
)
def test_what_is_not_http_is_400(port: int, sent: bytes) -> None:
    assert Client(port).send(sent).refusal() == 400
    assert Client(port).send(PREDICT).answer()[0] == 200


def test_some_pipelining_is_answered_in_order_and_more_is_refused(port: int) -> None:
    client = Client(port).send(PREDICT * 5)
    received = b""
    while received.count(b"HTTP/1.1 200 OK") < 5:
        received += client.socket.recv(65536)
    greedy = Client(port).send(PREDICT * 200)
    assert greedy.answer()[0] == 400


def test_a_connection_too_many_is_503_but_not_for_probes(port: int) -> None:
    idle = [Client(port).send(PREDICT) for _ in range(4)]
    assert [client.answer()[0] for client in idle] == [200] * 4
    assert Client(port).send(PREDICT).refusal() == 503
    assert Client(port).send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").answer()[0] == 200
    idle[0].socket.close()
    time.sleep(0.1)
    assert Client(port).send(PREDICT).answer()[0] == 200


def test_connections_far_too_many_are_not_even_heard(port: int) -> None:
    clients = [Client(port) for _ in range(12)]
    time.sleep(0.1)
    heard = []
    for client in clients:
        try:
            client.send(PREDICT)
        except ConnectionError:
            heard.append(0)
            continue
        heard.append(client.answer()[0])
    assert heard.count(0) == 4
    assert set(heard) <= {0, 200, 503}


def test_an_idle_connection_is_closed(port: int) -> None:
    client = Client(port).send(PREDICT)
    assert client.answer()[0] == 200
    begin = time.monotonic()
    assert client.answer()[0] == 0
    assert 0.5 < time.monotonic() - begin < 3


def test_an_upgrade_that_is_offered_is_ignored(port: int) -> None:
    # java.net.http offers HTTP/2 with every request
    # and means HTTP/1.1 by all that follows the head
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"
    client = Client(port)
    for _ in range(2):
        client.send(PREDICT.replace(b"Host: x\r\n", b"Host: x\r\n" + offer))
        assert client.answer()[0] == 200


def test_a_client_that_does_not_read_is_cut_off(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.app.write_response", lambda *_: b"x" * 20_000_000)
    with serving(predictor, QUICK) as number:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", number))
        client.sendall(PREDICT)
        time.sleep(1.2)
        received = 0
        while data := client.recv(1_000_000):
            received += len(data)
        client.close()
        assert received < 20_000_000


def test_who_leaves_is_not_worked_for(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    ran: list[int] = []
    original = predictor.answer

    def held(batch: list[object]) -> object:
        ran.append(len(batch))
        assert release.wait(10)
        return original(batch)  # type: ignore[arg-type]

    monkeypatch.setattr(predictor, "answer", held)
    with serving(predictor, QUICK) as number:
        stays = Client(number).send(PREDICT)
        while not ran:
            time.sleep(0.01)
        leaves = Client(number).send(PREDICT)
        time.sleep(0.1)
        leaves.socket.close()
        time.sleep(0.1)
        release.set()
        assert stays.answer()[0] == 200
        assert Client(number).send(PREDICT).answer()[0] == 200
    assert ran == [1, 1]


@pytest.mark.parametrize("sent", [b"", b'10\r\n{"text": "good"}\r\n', b"5\r\n{"])
def test_a_stream_that_goes_silent_is_given_up(
    port: int, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr("serving.bulk.STALL_SECONDS", 0.3)
    stream = b"Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    client = Client(port).send(HEAD + stream + sent)
    begin = time.monotonic()
    received = b""
    while data := client.socket.recv(1000):
        received += data
    assert 0.2 < time.monotonic() - begin < 3
    assert received.startswith(b"HTTP/1.1 408 ")  # nothing was answered before


def test_a_stream_may_take_longer_than_a_request(predictor: Predictor) -> None:
    stream = b"Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    settings = Settings(threads=1, deadline_seconds=0.4, read_seconds=0.4)
    with serving(predictor, settings) as number:
        client = Client(number).send(HEAD + stream)
        for _ in range(4):
            client.send(b"11\r\n" + BODY + b"\n\r\n")
            time.sleep(0.2)
        client.send(b"0\r\n\r\n")
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            data = client.socket.recv(65536)
            assert data, received
            received += data
    assert received.count(b'"label":') == 4 * 4  # the best one, and each of three
