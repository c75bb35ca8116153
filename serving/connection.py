"""One connection: uvicorn's HTTP/1.1 with bounds on what a client may send, and how slowly."""

from __future__ import annotations

import asyncio
import math
import os
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.asking import ERROR_TYPES, write_error
from serving.edge import Exchange
from serving.logs import RequestLog
from serving.metrics import Metrics
from serving.settings import Settings

# Requests sent ahead on one connection, before the first of them is answered.
PIPELINED = 32
# Java's client offers HTTP/2 in every request; the parser would take the body for HTTP/2 then.
UPGRADE = b"\r\nUpgrade:"
# A connection idle when the server stops may have a request on its way: it is read still.
LAST_REQUEST_SECONDS = 0.1


class Connection(HttpToolsProtocol):
    """Bounds the head of a request, the time it takes, and what is sent beside any body.

    uvicorn has none of these bounds with httptools: a head may be endless and take for ever.
    """

    def __init__(self, *given: Any, settings: Settings, metrics: Metrics, **named: Any) -> None:
        super().__init__(*given, **named)
        self._settings = settings
        self._metrics = metrics
        self._unparsed = 0  # bytes since the last head, or piece of a body, that was complete
        self._owed_since = math.inf  # since when the client owes the rest of a head or body
        self._watch: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Expect a head from now on."""
        super().connection_made(transport)  # type: ignore[arg-type]
        if len(self.connections) > 2 * self._settings.max_connections:
            self.transport.abort()  # beyond those that are told why
            return
        self._owed_since = self.loop.time()
        self._check_time()

    def connection_lost(self, error: Exception | None) -> None:
        """Stop the clocks, and whatever was being done for this client."""
        for timer in (self._watch, self._stalled):
            if timer is not None:
                timer.cancel()
        if self._busy():
            exchange = self.cycle.scope["state"]["exchange"]
            exchange.gone = True
            if exchange.task is not None:
                exchange.task.cancel()
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        """Parse, unless too much came that was neither a head nor a piece of a body."""
        self._unparsed += len(data)
        if UPGRADE in data and (self.cycle is None or not self.cycle.more_body):
            head, end, body = data.partition(b"\r\n\r\n")
            data = head.replace(UPGRADE, b"\r\nX-Upgrade:") + end + body
        super().data_received(data)
        if self._unparsed > self._settings.max_header_bytes and not self.transport.is_closing():
            self._refuse(431, "the head of the request is too large")

    def on_message_begin(self) -> None:
        """The first byte of a head."""
        super().on_message_begin()
        self._owed_since = self.loop.time()

    def on_headers_complete(self) -> None:
        """Say what is wrong with a head, for the application to answer."""
        limit, refused = self._settings.max_header_bytes, 0
        if len(self.connections) > self._settings.max_connections:
            refused = 503
        if self._unparsed > limit:  # a body may have come in the same packet
            lines = (len(name) + len(value) + 4 for name, value in self.headers)
            refused = 431 if len(self.url) + sum(lines) > limit else refused
        if len(self.pipeline) >= PIPELINED:
            raise ValueError("too many requests sent ahead")  # the parser answers 400 to this
        self._unparsed, self._owed_since = 0, math.inf
        self.scope["state"]["exchange"] = Exchange(refused=refused)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of a body; the application waits for the next only so long."""
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The client owes nothing more."""
        self._unparsed, self._owed_since = 0, math.inf
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """A body that was answered before its end is read to its end, but not for ever."""
        if self.cycle.more_body:
            self._owed_since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client does not read its answer; it may take as long for that as for asking."""
        self._stalled = self.loop.call_later(self._settings.read_seconds, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        """The client reads again."""
        if self._stalled is not None:
            self._stalled.cancel()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Closing waits until all is sent: for ever, if the client never reads."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        super().timeout_keep_alive_handler()

    def shutdown(self) -> None:
        """Read on for a moment: what was sent before the stop is answered."""
        self.loop.call_later(LAST_REQUEST_SECONDS, super().shutdown)

    def send_400_response(self, msg: str) -> None:
        """What cannot be parsed."""
        self._refuse(400, f"{msg} Send HTTP/1.1.")

    def _busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _check_time(self) -> None:
        """Refuse a client too slow with its head; one timer per connection, not per request."""
        patience = self._settings.read_seconds
        left = self._owed_since + patience - self.loop.time()
        if left <= 0 and not self._busy():
            self._refuse(408, f"the request took more than {patience} seconds")
            return
        self._watch = self.loop.call_later(min(max(left, 0.1), patience), self._check_time)

    def _refuse(self, status: int, message: str) -> None:
        """Answer without the application, where no answer is under way, and close."""
        request_id = os.urandom(16).hex()
        if self.cycle is None or not self._busy() or not self.cycle.response_started:
            content = write_error(status, message, request_id)
            head = (
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
                f"content-type: application/json\r\ncontent-length: {len(content)}\r\n"
                f"x-content-type-options: nosniff\r\nx-request-id: {request_id}\r\n"
                "connection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + content)
        self.transport.close()
        self._metrics.answered("none", status, ERROR_TYPES[status], 0.0)
        log = RequestLog(self._settings)
        if log.wanted:
            fields = {"route": "none", "status": status, "request_id": request_id}
            log.write({"message": "request", **fields})
