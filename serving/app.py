"""The ASGI application: routes and what their endpoints do; inference happens elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from msgspec import UNSET, UnsetType
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.asking import Asked, ProtocolError, check_not_cut, decode
from serving.bulk import MEDIA_TYPE, BulkResponse, make_room
from serving.edge import (
    EXCEPTION_HANDLERS,
    Edge,
    check_encoding,
    exchange_of,
    json_response,
    read_body,
)
from serving.engine import Engine, Engines
from serving.errors import InputError
from serving.hugging_face import read_hugging_face, write_hugging_face
from serving.metrics import CONTENT_TYPE, Metrics
from serving.open_inference import (
    EXTENSIONS,
    LENGTH_HEADER,
    describe_model,
    read_infer,
    write_infer,
)
from serving.openapi import describe_routes
from serving.page import Pages
from serving.predictor import Prediction, Predictor
from serving.protocol import read_request, write_response
from serving.scheduling import NotReadyError, QueueFullError
from serving.settings import Settings
from serving.tei import read_tei, write_tei
from serving.tokenization import Encoded
from serving.tokens import Tokens


class Keys(msgspec.Struct, frozen=True):
    """What tells the protocols of one path apart."""

    inputs: msgspec.Raw | UnsetType = UNSET
    parameters: msgspec.Raw | UnsetType = UNSET


class Endpoints:
    """What each route does; one request is answered by one engine."""

    def __init__(self, engines: Engines, settings: Settings) -> None:
        self._engines = engines
        self._settings = settings
        self._room = make_room(settings)

    async def predict(self, request: Request) -> Response | BulkResponse:
        """POST /predict: whichever shape the body has."""
        if request.headers.get("content-type", "").partition(";")[0].lower() == MEDIA_TYPE:
            return await self._stream(request)
        body = await read_body(request, self._settings)
        keys = decode(body, Keys)
        with self._engines.current as engine:
            if keys.parameters is not UNSET:
                return await self._hugging_face(request, engine, body)
            if keys.inputs is not UNSET:
                wanted = read_tei(body, engine.predictor, self._settings)
                predictions = await self.answer(request, engine, wanted.asked)
                return json_response(write_tei(engine.predictor, predictions, wanted))
            asked = read_request(body, engine.predictor, self._settings)
            predictions = await self.answer(request, engine, asked)
            return json_response(write_response(engine.predictor, predictions, asked))

    async def _stream(self, request: Request) -> BulkResponse:
        check_encoding(request)
        await self.ready(request)
        engine, exchange = self._engines.current, exchange_of(request)

        async def ask(asked: Asked) -> list[Prediction]:
            exchange.texts += len(asked.inputs)
            return await self._ask(engine, asked, None, self._settings.deadline_seconds)

        return BulkResponse(engine, self._settings, self._room, ask)

    async def root(self, request: Request) -> Response:
        """POST /: Hugging Face's shape."""
        body = await read_body(request, self._settings)
        with self._engines.current as engine:
            return await self._hugging_face(request, engine, body)

    async def _hugging_face(self, request: Request, engine: Engine, body: bytes) -> Response:
        asked = read_hugging_face(body, engine.predictor, self._settings)
        predictions = await self.answer(request, engine, asked)
        return json_response(write_hugging_face(engine.predictor, predictions, asked))

    async def infer(self, request: Request) -> Response:
        """POST /v2/models/NAME/infer."""
        body = await read_body(request, self._settings)
        with self._engines.current as engine:
            predictor = _known_model(request, engine)
            length = request.headers.get(LENGTH_HEADER)
            wanted = read_infer(body, length, predictor, self._settings)
            predictions = await self.answer(request, engine, wanted.asked, wanted.encoded)
            content, headers = write_infer(predictor, predictions, wanted.body)
            return Response(content, headers=headers)

    async def answer(
        self,
        request: Request,
        engine: Engine,
        asked: Asked,
        encoded: list[Encoded] | None = None,
    ) -> list[Prediction]:
        """Predictions for what a request asks.

        Raises:
            ProtocolError: 422 not for this model, 429 too much waits, 503 not ready, 504 too late.
        """
        exchange = exchange_of(request)
        exchange.inputs, exchange.texts = asked.inputs, len(asked.inputs)
        left = exchange.begin + self._settings.deadline_seconds - time.monotonic()
        return await self._ask(engine, asked, encoded, left)

    async def _ask(
        self, engine: Engine, asked: Asked, encoded: list[Encoded] | None, seconds: float
    ) -> list[Prediction]:
        try:
            async with asyncio.timeout(seconds):
                predictions = await engine.scheduler.predict(asked.inputs, encoded)
        except TimeoutError as error:  # what of it waits is not run: nobody waits for its answer
            raise ProtocolError(
                504, f"not answered within {self._settings.deadline_seconds} seconds"
            ) from error
        except InputError as error:
            raise ProtocolError(422, str(error)) from error
        except QueueFullError as error:
            raise ProtocolError(429, "too many texts are waiting; try again later") from error
        except NotReadyError as error:
            raise ProtocolError(503, "the model is not ready") from error
        if not asked.truncate:
            check_not_cut(engine.predictor, predictions)
        return predictions

    async def model_metadata(self, request: Request) -> Response:
        """GET /v2/models/NAME."""
        predictor = _known_model(request, self._engines.current)
        return json_response(msgspec.json.encode(describe_model(predictor)))

    async def model_ready(self, request: Request) -> Response:
        """GET /v2/models/NAME/ready."""
        _known_model(request, self._engines.current)
        return await self.ready(request)

    async def server_metadata(self, _: Request) -> Response:
        """GET /v2."""
        version = self._engines.current.predictor.version
        about = {"name": "serving", "version": version, "extensions": EXTENSIONS}
        return json_response(msgspec.json.encode(about))

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json."""
        predictor = self._engines.current.predictor
        document = describe_routes(request.app.routes, predictor, self._settings)
        return json_response(msgspec.json.encode(document))

    async def health(self, _: Request) -> Response:
        """GET /health: the process answers."""
        return json_response(b'{"live":true}')

    async def metrics(self, _: Request) -> Response:
        """GET /metrics, for Prometheus."""
        return Response(self._engines.metrics.text(), media_type=CONTENT_TYPE)

    async def ready(self, _: Request) -> Response:
        """GET /ready: the model is warm and its threads live."""
        engine = self._engines.current
        if self._engines.stopping:
            raise ProtocolError(503, "the server is stopping")
        if not engine.scheduler.ready:
            raise ProtocolError(503, "the model is not ready")
        model = {"name": engine.predictor.name, "version": engine.predictor.version}
        return json_response(msgspec.json.encode({"ready": True, "model": model}))


def create_app(bundle: Predictor | Path | str, settings: Settings) -> Starlette:
    """The application for one bundle; inference threads live as long as its lifespan.

    Raises:
        ServingError: a bundle given by its path, or the file of tokens, cannot be opened.
    """
    tokens = Tokens(settings)
    engines = Engines(bundle, settings, Metrics())

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await engines.start()
        try:
            yield
        finally:
            engines.close()

    app = Starlette(
        routes=[*_routes(Endpoints(engines, settings)), *Pages(engines, settings).routes()],
        middleware=[Middleware(Edge, settings, tokens, engines)],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.engines = engines
    return app


def _routes(endpoints: Endpoints) -> list[Route]:
    """Every route, in the order they are tried."""
    return [
        Route("/predict", endpoints.predict, methods=["POST"]),
        Route("/health", endpoints.health, methods=["GET"]),
        Route("/ready", endpoints.ready, methods=["GET"]),
        Route("/metrics", endpoints.metrics, methods=["GET"]),
        Route("/openapi.json", endpoints.openapi, methods=["GET"]),
        Route("/", endpoints.root, methods=["POST"]),
        Route("/v2", endpoints.server_metadata, methods=["GET"]),
        Route("/v2/health/live", endpoints.health, methods=["GET"]),
        Route("/v2/health/ready", endpoints.ready, methods=["GET"]),
        *(
            Route(f"/v2/models/{{name}}{version}{path}", endpoint, methods=[method])
            for version in ("", "/versions/{version}")
            for path, endpoint, method in (
                ("", endpoints.model_metadata, "GET"),
                ("/ready", endpoints.model_ready, "GET"),
                ("/infer", endpoints.infer, "POST"),
            )
        ),
    ]


def _known_model(request: Request, engine: Engine) -> Predictor:
    """The predictor, unless a model, or a version of it, is asked for that is not the one served.

    Raises:
        ProtocolError: 404.
    """
    asked, predictor = request.path_params, engine.predictor
    if asked["name"] != predictor.name:
        raise ProtocolError(404, f"no model {asked['name']!r}; this server has {predictor.name!r}")
    if asked.get("version", predictor.version) != predictor.version:
        raise ProtocolError(
            404, f"no version {asked['version']!r}; this server has {predictor.version!r}"
        )
    return predictor
