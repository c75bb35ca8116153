"""Where HTTP meets the application: who may ask, ids, bodies, errors, and the line in the log."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from dataclasses import dataclass, field
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, ExceptionHandler, Message, Receive, Scope, Send

from serving.asking import ERROR_TYPES, ProtocolError, write_error
from serving.engine import Engines
from serving.logs import RequestLog, describe_error, read_trace_parent
from serving.settings import Settings
from serving.tokenization import Inputs
from serving.tokens import Tokens

logger = logging.getLogger("serving")

# Nobody needs a token, nor a free connection, to learn whether the server lives.
PROBES = frozenset({"/health", "/ready", "/v2/health/live", "/v2/health/ready"})
# The pages and their parts; they hold nothing of the model.
FILES = {"/": "index.html", "/docs": "docs.html"} | {
    f"/static/{name}": name for name in ("page.css", "page.js", "docs.js", "icon.svg")
}
# What a client is told that left before its answer: nothing; so the log and the metrics call it.
GONE = 499
_SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
# A body over the limit is read on, unkept, this many times the limit, so that the client
# finishes sending and sees the answer instead of a reset connection.
DISCARD_FACTOR = 8
# Anything else is read as JSON whatever it is called: `curl -d` calls it a form.
_READABLE = {
    "application/json",
    "application/octet-stream",  # tritonclient's, JSON with tensors behind
    "application/x-www-form-urlencoded",
    "text/json",
    "text/plain",
}
_EVERY_ANSWER = (b"x-content-type-options", b"nosniff")
_EVERY_PAGE = (
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)


@dataclass(slots=True)
class Exchange:
    """One request on its way through the server, as the log will tell of it.

    `refused` is a status that the connection decided on before anything was read; `gone` is
    set by the connection when the client has left.
    """

    begin: float = field(default_factory=time.monotonic)
    request_id: str = ""
    trace: tuple[str, str] | None = None
    inputs: Inputs = ()
    texts: int = 0
    status: int = 0
    refused: int = 0
    gone: bool = False
    task: asyncio.Task[Any] | None = None


def exchange_of(request: Request) -> Exchange:
    """What the edge knows of a request."""
    exchange: Exchange = request.scope["state"]["exchange"]
    return exchange


async def read_body(request: Request, settings: Settings) -> bytes:
    """The request's body, whether or not its length was announced.

    Raises:
        ProtocolError: 408 too slow, 413 over the limit, 415 compressed or not JSON by its name.
    """
    check_encoding(request)
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media and media not in _READABLE and not media.endswith("+json"):
        raise ProtocolError(415, f"{media!r} is not supported; send application/json")
    limit = settings.max_body_bytes
    kept = bytearray()
    received = 0
    patience = min(settings.read_seconds, settings.deadline_seconds)
    try:
        async with asyncio.timeout(patience):
            async for chunk in request.stream():
                received += len(chunk)
                if received <= limit:
                    kept += chunk
                elif received > limit * DISCARD_FACTOR:
                    break
    except TimeoutError as error:
        raise ProtocolError(408, f"the body took more than {patience} seconds") from error
    if received > limit:
        raise ProtocolError(413, f"the body has more than {limit} bytes")
    return bytes(kept)


def check_encoding(request: Request) -> None:
    """Refuse a compressed body.

    Raises:
        ProtocolError: 415.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise ProtocolError(415, f"content encoding {encoding!r} is not supported; send plain JSON")


class Edge:
    """Lets in who may, gives every request an id, answers for whatever fails, and counts."""

    def __init__(self, app: ASGIApp, settings: Settings, tokens: Tokens, engines: Engines) -> None:
        self._app = app
        self._settings = settings
        self._tokens = tokens
        self._metrics = engines.metrics
        self._log = RequestLog(settings)
        self._engines = engines
        self._open = PROBES | {"/metrics"} if settings.metrics_open else PROBES
        self._open |= FILES.keys() - {"/"}  # the pages ask for a token before they ask for more

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and tell of it when it is answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = scope.setdefault("state", {}).setdefault("exchange", Exchange())
        exchange.task = asyncio.current_task()

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = [*message.get("headers", ()), *self._headers(exchange)]
                if _is_page(message["headers"]):
                    given = {name for name, _ in message["headers"]}
                    message["headers"] += [pair for pair in _EVERY_PAGE if pair[0] not in given]
            await send(message)

        try:
            refusal = self._admit(scope, exchange)
            await (refusal or self._app)(scope, receive, send_marked)
        except asyncio.CancelledError:
            if not exchange.status:
                answer = _error(Request(scope), 503, "the server is stopping")
                await answer(scope, receive, send_marked)
        except Exception as error:
            told = describe_error(error, texts=self._settings.log_texts)
            logger.error("request %s failed: %s", exchange.request_id, told)
            if not exchange.status:
                message = f"the request failed; its log tells why under {exchange.request_id}"
                await _error(Request(scope), 500, message)(scope, receive, send_marked)
        finally:
            exchange.task = None
            self._tell(scope, exchange)

    def _admit(self, scope: Scope, exchange: Exchange) -> Response | None:
        """Name the request; the refusal of one that is not let in."""
        authorization, request_id = b"", b""
        parents = []
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                request_id = value
            elif name == b"authorization":
                authorization = value
            elif name == b"traceparent":
                parents.append(value)
        sane = _SANE_REQUEST_ID.fullmatch(request_id)
        exchange.request_id = request_id.decode() if sane else os.urandom(16).hex()
        exchange.trace = read_trace_parent(parents) if parents else None
        if exchange.refused == 431:
            return _error(Request(scope), 431, "the head of the request is too large")
        if scope["path"] in self._open or (scope["path"] == "/" and scope["method"] != "POST"):
            return None
        if exchange.refused:
            return _error(Request(scope), exchange.refused, "too many connections")
        if not self._tokens.allow(authorization):
            told = "give a valid token: Authorization: Bearer TOKEN"
            return _error(Request(scope), 401, told, {"WWW-Authenticate": "Bearer"})
        return None

    def _headers(self, exchange: Exchange) -> list[tuple[bytes, bytes]]:
        """What every answer carries."""
        headers = [_EVERY_ANSWER, (b"x-request-id", exchange.request_id.encode())]
        if self._engines.stopping:
            headers.append((b"connection", b"close"))
        return headers

    def _tell(self, scope: Scope, exchange: Exchange) -> None:
        """Count the request, and log a line about it."""
        seconds = time.monotonic() - exchange.begin
        route = getattr(scope.get("route"), "path", "none")
        status = GONE if exchange.gone else exchange.status
        self._metrics.answered(route, status, ERROR_TYPES.get(status), seconds)
        quiet = status == 200 and (scope["path"] in PROBES or route == "/metrics")
        if not self._log.wanted or (quiet and self._settings.log_level != "debug"):
            return
        fields: dict[str, Any] = {
            "message": "request",
            "method": scope["method"],
            "route": route,
            "status": status,
            "duration_ms": round(1000 * seconds, 3),
            "texts": exchange.texts,
            "request_id": exchange.request_id,
        }
        if exchange.trace:
            fields["trace_id"], fields["parent_id"] = exchange.trace
            fields["span_id"] = os.urandom(8).hex()
        if self._settings.log_texts:
            fields["inputs"] = exchange.inputs
        self._log.write(fields)


def _is_page(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(name == b"content-type" and value[:9] == b"text/html" for name, value in headers)


def json_response(content: bytes) -> Response:
    """A 200 with a body already encoded."""
    return Response(content, media_type="application/json")


def _error(
    request: Request, status: int, message: str, headers: dict[str, str] | None = None
) -> Response:
    headers = headers or {}
    if status == 429:
        headers["Retry-After"] = "1"
    if status in (408, 413, 431, 503):
        headers["Connection"] = "close"  # what is left of the request is not worth reading
    content = write_error(status, message, exchange_of(request).request_id)
    return Response(content, status, headers, media_type="application/json")


def _protocol_error(request: Request, error: Exception) -> Response:
    """The answer to a request that was refused."""
    assert isinstance(error, ProtocolError)
    return _error(request, error.status, error.message)


def _routing_error(request: Request, error: Exception) -> Response:
    """The answer to an unknown path or a method the path does not have."""
    assert isinstance(error, HTTPException)
    messages = {
        404: "there is nothing here; try POST /predict, GET /ready, GET /v2",
        405: f"{request.method} is not possible here",
    }
    message = messages.get(error.status_code, error.detail)
    headers = dict(error.headers or {})
    if error.status_code == 405:  # the router knows only the first of several routes of a path
        same = [item for item in request.app.routes if item.path_regex.match(request.url.path)]
        headers["Allow"] = ", ".join(sorted({method for item in same for method in item.methods}))
    return _error(request, error.status_code, message, headers)


def _client_gone(request: Request, _: Exception) -> Response:
    """Nobody reads this: the client left before its request was complete."""
    exchange_of(request).gone = True
    return Response(status_code=400)


EXCEPTION_HANDLERS: dict[type[Exception], ExceptionHandler] = {
    ProtocolError: _protocol_error,
    HTTPException: _routing_error,
    ClientDisconnect: _client_gone,
}
