"""Where HTTP meets the application: ids, bodies, error answers; whatever fails becomes a status."""

from __future__ import annotations

import logging
import re
import traceback
import uuid

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, ExceptionHandler, Message, Receive, Scope, Send

from serving.asking import ProtocolError, write_error
from serving.errors import ServingError

logger = logging.getLogger("serving")

REQUEST_ID = "X-Request-Id"
_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# A body over the limit is read on, unkept, this many times the limit, so that the client
# finishes sending and sees the answer instead of a reset connection.
DISCARD_FACTOR = 8


async def read_body(request: Request, limit: int) -> bytes:
    """The request's body, whether or not its length was announced.

    Raises:
        ProtocolError: 413 over the limit, 415 compressed.
    """
    check_encoding(request)
    kept = bytearray()
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received <= limit:
            kept += chunk
        elif received > limit * DISCARD_FACTOR:
            break
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
    """Gives every request an id, and answers 500 for whatever nobody else caught."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with its id in the scope and in the response's header."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        given = request.headers.get(REQUEST_ID, "")
        request_id = given if _SANE_REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        request.state.request_id = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            _log_failure(request_id, error)
            if not started:
                message = f"the request failed; the server's log tells why under {request_id}"
                await _error(request, 500, message)(scope, receive, send_with_id)


def _log_failure(request_id: str, error: Exception) -> None:
    """Log where it failed; a message we did not write may quote the text, so it stays out."""
    reason = str(error) if isinstance(error, ServingError) else "(message withheld)"
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("request %s failed: %s: %s\n%s", request_id, type(error).__name__, reason, frames)


def json_response(content: bytes) -> Response:
    """A 200 with a body already encoded."""
    return Response(content, media_type="application/json")


def _error(
    request: Request, status: int, message: str, headers: dict[str, str] | None = None
) -> Response:
    content = write_error(status, message, request.state.request_id)
    return Response(content, status, headers, media_type="application/json")


def _protocol_error(request: Request, error: Exception) -> Response:
    """The answer to a request that was refused."""
    assert isinstance(error, ProtocolError)
    headers = {}
    if error.status == 429:
        headers["Retry-After"] = "1"
    if error.status in (413, 415):
        headers["Connection"] = "close"  # what is left of the body is not worth reading
    return _error(request, error.status, error.message, headers)


def _routing_error(request: Request, error: Exception) -> Response:
    """The answer to an unknown path or a method the path does not have."""
    assert isinstance(error, HTTPException)
    messages = {
        404: "there is nothing here; try POST /predict, GET /ready, GET /v2",
        405: f"{request.method} is not possible here",
    }
    message = messages.get(error.status_code, error.detail)
    return _error(request, error.status_code, message, dict(error.headers or {}))


def _client_gone(_: Request, __: Exception) -> Response:
    """Nobody reads this: the client left before its request was complete."""
    return Response(status_code=400)


EXCEPTION_HANDLERS: dict[type[Exception], ExceptionHandler] = {
    ProtocolError: _protocol_error,
    HTTPException: _routing_error,
    ClientDisconnect: _client_gone,
}
