"""HTTP over a plain socket, byte by byte if need be."""

from __future__ import annotations

import json
import socket

from serving.asking import ERROR_TYPES

BODY = b'{"text": "good"}'
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
PREDICT = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


class Client:
    """One connection, and what it has been answered."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)

    def __del__(self) -> None:
        self.socket.close()

    def send(self, data: bytes) -> Client:
        self.socket.sendall(data)
        return self

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of one response; status 0 when there is none any more."""
        received = b""
        while b"\r\n\r\n" not in received:
            data = self._receive()
            if not data:
                return 0, {}, received
            received += data
        head, _, body = received.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        while len(body) < int(headers["content-length"]):
            body += self._receive()
        return int(first.split()[1]), headers, body

    def refusal(self) -> int:
        """The status of an answer that refuses as all refusals do, and ends the connection."""
        status, headers, body = self.answer()
        told = json.loads(body)
        assert told["error_type"] == ERROR_TYPES[status]
        assert told["request_id"] == headers["x-request-id"]
        assert headers["content-type"] == "application/json"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["connection"] == "close"
        assert self._receive() == b""
        return status

    def _receive(self) -> bytes:
        try:
            return self.socket.recv(65536)
        except ConnectionError:
            return b""
