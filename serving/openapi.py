"""The OpenAPI 3.1 document, made from the types that validate, the limits and the served model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.routing import BaseRoute, Route

from serving.asking import ERROR_TYPES, ErrorBody, LabelScore
from serving.bulk import MEDIA_TYPE, Line
from serving.hugging_face import HuggingFaceBody, TextPair
from serving.open_inference import InferBody
from serving.page import ModelCard, TokenizeBody, TokenizeResponse
from serving.predictor import Predictor
from serving.protocol import (
    ClassPrediction,
    LabelsPrediction,
    ModelIdentity,
    PredictBody,
    ValuePrediction,
)
from serving.settings import Settings
from serving.tei import TeiBody

REFERENCE = "#/components/schemas/{name}"
JSON = "application/json"
ANSWERS = {
    "classification": ClassPrediction,
    "multilabel": LabelsPrediction,
    "regression": ValuePrediction,
}
Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """One route: what it does, what goes in and out by media type, how it can be refused."""

    summary: str
    answers: dict[str, Schema]
    bodies: dict[str, Schema]
    examples: dict[str, Any]
    refusals: tuple[int, ...] = ()


BODY_REFUSALS = (400, 413, 415, 422)
RUN_REFUSALS = (*BODY_REFUSALS, 429, 500, 503)


def describe_routes(
    routes: Iterable[BaseRoute], predictor: Predictor, settings: Settings
) -> Schema:
    """The document: every route, with examples that the served model answers."""
    known = _operations(predictor)
    paths: Schema = {}
    for route in routes:
        assert isinstance(route, Route)
        for method in sorted((route.methods or set()) - {"HEAD"}):
            name = f"{method} {route.path.replace('/versions/{version}', '')}"
            paths.setdefault(route.path, {})[method.lower()] = _describe(
                known.get(name) or _file(route.path), f"{method} {route.path}", predictor
            )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": predictor.name,
            "version": predictor.version,
            "description": f"{predictor.task}; labels: {', '.join(predictor.labels)}.",
        },
        "paths": paths,
        "components": {
            "schemas": _schemas(predictor, settings),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _operations(predictor: Predictor) -> dict[str, Operation]:
    """What stands at each method and path; a version in the path changes nothing."""
    pair = ["where is my parcel?", "it has not come"]
    one: Any = pair if predictor.text_pair else pair[0]
    word = "pair" if predictor.text_pair else "text"
    toolkit = {"text": pair[0], "text_pair": pair[1]} if predictor.text_pair else one
    names = ("text", "text_pair") if predictor.text_pair else ("text",)
    tensors = [
        {"name": name, "shape": [1], "datatype": "BYTES", "data": [text]}
        for name, text in zip(names, pair, strict=False)
    ]
    scores = {"type": "array", "items": _ref("LabelScore")}
    lists = {"type": "array", "items": scores}
    plain = {JSON: {"type": "object"}}
    predict = {
        "native": {word: one},
        "native_batch": {f"{word}s": [one, one]},
        "text_embeddings_inference": {"inputs": one, "truncate": True},
        "hugging_face": {"inputs": [toolkit], "parameters": {}},
    }
    shapes = {"anyOf": [_ref("PredictBody"), _ref("TeiBody"), _ref("HuggingFaceBody")]}
    found = {"anyOf": [_ref("PredictResponse"), scores, lists]}
    stream = {"type": "string", "description": "one JSON object per line"}
    return {
        "POST /predict": Operation(
            "Labels and scores, in the shape of the question",
            {JSON: found, MEDIA_TYPE: stream},
            {JSON: shapes, MEDIA_TYPE: stream | {"contentSchema": _ref("Line")}},
            predict,
            RUN_REFUSALS,
        ),
        "POST /": Operation(
            "The same in Hugging Face's shape",
            {JSON: lists},
            {JSON: _ref("HuggingFaceBody")},
            {"hugging_face": {"inputs": [toolkit]}},
            RUN_REFUSALS,
        ),
        "POST /v2/models/{name}/infer": Operation(
            "Inference by the Open Inference Protocol v2",
            plain,
            {JSON: _ref("InferBody")},
            {"texts": {"inputs": tensors}},
            (*RUN_REFUSALS, 404),
        ),
        "GET /v2/models/{name}": Operation("The model's inputs and outputs", plain, {}, {}, (404,)),
        "GET /v2/models/{name}/ready": Operation("Whether it answers", plain, {}, {}, (404, 503)),
        "GET /v2": Operation("The server's name and extensions", plain, {}, {}),
        "GET /v2/health/live": Operation("The process answers", plain, {}, {}),
        "GET /v2/health/ready": Operation("The model answers", plain, {}, {}, (503,)),
        "GET /health": Operation("The process answers", plain, {}, {}),
        "GET /ready": Operation("The model is warm, its threads live", plain, {}, {}, (503,)),
        "GET /metrics": Operation("For Prometheus", {"text/plain": {"type": "string"}}, {}, {}),
        "GET /model": Operation("The model's card", {JSON: _ref("ModelCard")}, {}, {}),
        "GET /openapi.json": Operation("This document", plain, {}, {}),
        "POST /tokenize": Operation(
            "The pieces a text is cut into",
            {JSON: _ref("TokenizeResponse")},
            {JSON: _ref("TokenizeBody")},
            {"one": {word: one}},
            BODY_REFUSALS,
        ),
    }


def _file(path: str) -> Operation:
    """A page, or a file that a page needs."""
    kinds = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    kind = kinds.get(path.rpartition(".")[2], "text/html")
    return Operation("A page or a part of one", {kind: {"type": "string"}}, {}, {})


def _describe(operation: Operation, name: str, predictor: Predictor) -> Schema:
    """One operation in OpenAPI's words."""
    answers = {media: {"schema": schema} for media, schema in operation.answers.items()}
    error = {JSON: {"schema": _ref("ErrorBody")}}
    described: Schema = {
        "operationId": re.sub(r"\W+", "_", name).strip("_").lower(),
        "summary": operation.summary,
        "responses": {"200": {"description": "the answer", "content": answers}}
        | {
            str(status): {"description": ERROR_TYPES[status], "content": error}
            for status in sorted({*operation.refusals, *({401, 408, 431, 504} & set(ERROR_TYPES))})
        },
    }
    values = {"name": predictor.name, "version": predictor.version}
    if parameters := re.findall(r"{(\w+)}", name):
        described["parameters"] = [
            {
                "name": key,
                "in": "path",
                "required": True,
                "schema": {"type": "string"},
                "example": values[key],
            }
            for key in parameters
        ]
    if operation.bodies:
        content: Schema = {media: {"schema": schema} for media, schema in operation.bodies.items()}
        content[JSON]["examples"] = {
            key: {"value": value} for key, value in operation.examples.items()
        }
        described["requestBody"] = {"required": True, "content": content}
    return described


def _schemas(predictor: Predictor, settings: Settings) -> dict[str, Schema]:
    """Every type, with the limits of the settings and of the model."""
    answer = ANSWERS[predictor.task]
    response = msgspec.defstruct(
        "PredictResponse",
        [("model", ModelIdentity), ("predictions", list[answer])],  # type: ignore[valid-type] # one of three
    )
    kinds: list[Any] = [
        PredictBody,
        TeiBody,
        HuggingFaceBody,
        InferBody,
        Line,
        TokenizeBody,
        ErrorBody,
    ]
    kinds += [response, TokenizeResponse, ModelCard, LabelScore]
    _, schemas = msgspec.json.schema_components(kinds, ref_template=REFERENCE)
    text = {"type": "string", "pattern": r"\S", "maxLength": settings.max_text_characters}
    pair = {"type": "array", "prefixItems": [text, text], "items": False, "minItems": 2}
    pair |= {"maxItems": 2}
    item, words = (pair, ("pair", "pairs")) if predictor.text_pair else (text, ("text", "texts"))
    for name in ("PredictBody", "Line", "TokenizeBody"):
        properties = schemas[name]["properties"]
        for word in ("text", "texts", "pair", "pairs"):
            properties.pop(word, None)
        if predictor.task != "multilabel":
            properties.pop("threshold", None)
        if predictor.task == "regression":
            properties.pop("top_k", None)
        properties[words[0]] = item
        schemas[name]["required"] = [words[0]]
    many = {"type": "array", "items": item, "minItems": 1, "maxItems": settings.max_texts}
    body = schemas["PredictBody"]
    body["properties"][words[1]] = many
    del body["required"]
    body["oneOf"] = [{"required": [word]} for word in words]
    row = pair if predictor.text_pair else {**many, "items": text, "maxItems": 1}
    single = [pair] if predictor.text_pair else [text, row]
    schemas["TeiBody"]["properties"]["inputs"] = {"anyOf": [*single, {**many, "items": row}]}
    fields = ("text", "text_pair") if predictor.text_pair else ("text",)
    schemas[TextPair.__name__] |= {
        "properties": dict.fromkeys(fields, text),
        "required": list(fields),
    }
    either = [_ref("TextPair")] if predictor.text_pair else [text, _ref("TextPair")]
    schemas["HuggingFaceBody"]["properties"]["inputs"] = {
        "anyOf": [*either, {**many, "items": {"anyOf": either}}]
    }
    schemas["LabelScore"]["properties"]["label"]["enum"] = list(predictor.labels)
    schemas["ErrorBody"]["properties"]["error_type"]["enum"] = list(ERROR_TYPES.values())
    return schemas


def _ref(name: str) -> Schema:
    return {"$ref": REFERENCE.format(name=name)}
