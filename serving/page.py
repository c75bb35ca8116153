"""What the pages need: their files, the facts of the model, and how a text is cut into pieces."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from serving.asking import ProtocolError, check_limits, decode
from serving.bundle import Facts, ModelFile
from serving.edge import FILES, json_response, read_body
from serving.engine import Engines
from serving.errors import InputError
from serving.predictor import Predictor
from serving.settings import Settings
from serving.tokenization import Inputs, Piece

STATIC = Path(__file__).with_name("static")
HEADERS = {"Cache-Control": "no-cache"}


class TokenizeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /tokenize: a text or, of a model for pairs, a pair."""

    text: str | UnsetType = UNSET
    pair: tuple[str, str] | UnsetType = UNSET


class TokenizeResponse(msgspec.Struct, frozen=True):
    """The pieces that the model reads, special ones left out."""

    pieces: list[Piece]
    truncated: bool


class ModelCard(msgspec.Struct, frozen=True):
    """What is known of the model: how it is called, how good it is, what it passed."""

    name: str
    version: str
    task: str
    labels: list[str]
    thresholds: list[float] | None
    text_pair: bool
    max_length: int
    model: ModelFile
    scores: Facts
    gate: list[Facts]


class Pages:
    """The routes of the pages."""

    def __init__(self, engines: Engines, settings: Settings) -> None:
        self._engines = engines
        self._settings = settings

    def routes(self) -> list[Route]:
        """Every route that is here for people."""
        return [
            Route("/model", self.model, methods=["GET"]),
            Route("/tokenize", self.tokenize, methods=["POST"]),
            *(Route(path, self.file, methods=["GET"]) for path in FILES),
        ]

    async def file(self, request: Request) -> Response:
        """A page or one of its files."""
        return FileResponse(STATIC / FILES[request.url.path], headers=HEADERS)

    async def model(self, _: Request) -> Response:
        """GET /model."""
        return json_response(msgspec.json.encode(model_card(self._engines.current.predictor)))

    async def tokenize(self, request: Request) -> Response:
        """POST /tokenize."""
        body = decode(await read_body(request, self._settings), TokenizeBody)
        predictor = self._engines.current.predictor
        given = body.pair if predictor.text_pair else body.text
        if isinstance(given, UnsetType) or (body.text is not UNSET) == (body.pair is not UNSET):
            kind = "a pair" if predictor.text_pair else "a text"
            raise ProtocolError(422, f"give {kind}, and nothing else; {predictor.name} takes that")
        inputs: Any = [given]
        checked: Inputs = inputs
        check_limits("pair" if predictor.text_pair else "text", checked, self._settings)
        try:  # a long text takes milliseconds
            pieces, truncated = await asyncio.to_thread(predictor.pieces_of, given)
        except InputError as error:
            raise ProtocolError(422, str(error)) from error
        return json_response(msgspec.json.encode(TokenizeResponse(pieces, truncated)))


def model_card(predictor: Predictor) -> ModelCard:
    """The part of the manifest that people ask for."""
    manifest = predictor.manifest
    return ModelCard(
        manifest.name,
        manifest.version,
        manifest.task,
        manifest.labels,
        None if isinstance(manifest.thresholds, UnsetType) else manifest.thresholds,
        manifest.text_pair,
        manifest.max_length,
        manifest.model,
        manifest.scores,
        manifest.gate,
    )
