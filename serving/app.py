"""The ASGI application: routes, limits, statuses; inference happens elsewhere."""

from __future__ import annotations

import asyncio
import logging
import re
import traceback
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from msgspec import UNSET, UnsetType
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.asking import Asked, ProtocolError, check_not_cut, decode, write_error
from serving.errors import InputError, ServingError
from serving.hugging_face import read_hugging_face, write_hugging_face
from serving.open_inference import (
    EXTENSIONS,
    LENGTH_HEADER,
    describe_model,
    read_infer,
    write_infer,
)
from serving.predictor import Prediction, Predictor
from serving.protocol import read_request, write_response
from serving.scheduling import NotReadyError, QueueFullError, Scheduler
from serving.settings import Settings
from serving.tei import read_tei, write_tei
from serving.tokenization import Encoded

logger = logging.getLogger("serving")

REQUEST_ID = "X-Request-Id"
_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# A refusal sent at once is retried at once: under fourfold overload that halves the useful
# answers, while holding it this long costs nothing.
REFUSAL_DELAY_SECONDS = 0.25
# A body over the limit is read on, unkept, this many times the limit, so that the client
# finishes sending and sees the answer instead of a reset connection.
DISCARD_FACTOR = 8


class Keys(msgspec.Struct, frozen=True):
    """What tells the protocols of one path apart."""

    inputs: msgspec.Raw | UnsetType = UNSET
    parameters: msgspec.Raw | UnsetType = UNSET


def create_app(bundle: Predictor | Path | str, settings: Settings) -> Starlette:
    """The application for one bundle; inference threads live as long as its lifespan.

    Raises:
        ServingError: a bundle given by its path cannot be opened.
    """
    if isinstance(bundle, Predictor):
        predictor = bundle
    else:
        predictor = Predictor.open(bundle, provider=settings.execution_provider)
    scheduler = Scheduler(predictor, settings.threads, settings.queue_limit)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await scheduler.start()
        try:
            yield
        finally:
            scheduler.close()

    async def answer(asked: Asked, encoded: list[Encoded] | None = None) -> list[Prediction]:
        try:
            predictions = await scheduler.predict(asked.inputs, encoded)
        except InputError as error:
            raise ProtocolError(422, str(error)) from error
        except QueueFullError as error:
            await asyncio.sleep(REFUSAL_DELAY_SECONDS)
            raise ProtocolError(429, "too many texts are waiting; try again later") from error
        except NotReadyError as error:
            raise ProtocolError(503, "the model is not ready") from error
        if not asked.truncate:
            check_not_cut(predictor, predictions)
        return predictions

    async def predict(request: Request) -> Response:
        body = await _read_body(request, settings.max_body_bytes)
        keys = decode(body, Keys)
        if keys.parameters is not UNSET:
            return await _hugging_face(body)
        if keys.inputs is not UNSET:
            wanted = read_tei(body, predictor, settings)
            return _json(200, write_tei(predictor, await answer(wanted.asked), wanted))
        asked = read_request(body, predictor, settings)
        return _json(200, write_response(predictor, await answer(asked), asked))

    async def _hugging_face(body: bytes) -> Response:
        asked = read_hugging_face(body, predictor, settings)
        return _json(200, write_hugging_face(predictor, await answer(asked), asked))

    async def root(request: Request) -> Response:
        return await _hugging_face(await _read_body(request, settings.max_body_bytes))

    async def infer(request: Request) -> Response:
        _known_model(request, predictor)
        body = await _read_body(request, settings.max_body_bytes)
        wanted = read_infer(body, request.headers.get(LENGTH_HEADER), predictor, settings)
        predictions = await answer(wanted.asked, wanted.encoded)
        content, headers = write_infer(predictor, predictions, wanted.body)
        return Response(content, headers=headers)

    async def model_metadata(request: Request) -> Response:
        _known_model(request, predictor)
        return _json(200, msgspec.json.encode(describe_model(predictor)))

    async def model_ready(request: Request) -> Response:
        _known_model(request, predictor)
        return await ready(request)

    async def server_metadata(_: Request) -> Response:
        about = {"name": "serving", "version": predictor.version, "extensions": EXTENSIONS}
        return _json(200, msgspec.json.encode(about))

    async def health(_: Request) -> Response:
        return _json(200, b'{"live":true}')

    async def ready(_: Request) -> Response:
        if not scheduler.ready:
            raise ProtocolError(503, "the model is not ready")
        model = {"name": predictor.name, "version": predictor.version}
        return _json(200, msgspec.json.encode({"ready": True, "model": model}))

    app = Starlette(
        routes=[
            Route("/predict", predict, methods=["POST"]),
            Route("/health", health, methods=["GET"]),
            Route("/ready", ready, methods=["GET"]),
            Route("/", root, methods=["POST"]),
            Route("/v2", server_metadata, methods=["GET"]),
            Route("/v2/health/live", health, methods=["GET"]),
            Route("/v2/health/ready", ready, methods=["GET"]),
            *(
                Route(f"/v2/models/{{name}}{version}{path}", endpoint, methods=[method])
                for version in ("", "/versions/{version}")
                for path, endpoint, method in (
                    ("", model_metadata, "GET"),
                    ("/ready", model_ready, "GET"),
                    ("/infer", infer, "POST"),
                )
            ),
        ],
        middleware=[Middleware(_Edge)],
        exception_handlers={
            ProtocolError: _protocol_error,
            HTTPException: _routing_error,
            ClientDisconnect: _client_gone,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


def _known_model(request: Request, predictor: Predictor) -> None:
    """Refuse a model, or a version of it, that is not the one served."""
    asked = request.path_params
    if asked["name"] != predictor.name:
        raise ProtocolError(404, f"no model {asked['name']!r}; this server has {predictor.name!r}")
    if asked.get("version", predictor.version) != predictor.version:
        raise ProtocolError(
            404, f"no version {asked['version']!r}; this server has {predictor.version!r}"
        )


async def _read_body(request: Request, limit: int) -> bytes:
    """The request's body, whether or not its length was announced.

    Raises:
        ProtocolError: 413 over the limit, 415 compressed.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise ProtocolError(415, f"content encoding {encoding!r} is not supported; send plain JSON")
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


class _Edge:
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


def _json(status: int, content: bytes, headers: dict[str, str] | None = None) -> Response:
    return Response(content, status, headers, media_type="application/json")


def _error(
    request: Request, status: int, message: str, headers: dict[str, str] | None = None
) -> Response:
    return _json(status, write_error(status, message, request.state.request_id), headers)


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
