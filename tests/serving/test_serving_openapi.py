"""The OpenAPI document: valid, whole, and true of what the server answers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from serving.app import create_app
from serving.asking import ERROR_TYPES
from serving.settings import Settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from openapi_spec_validator import OpenAPIV31SpecValidator
    from starlette.testclient import TestClient

KINDS: dict[str, dict[str, Any]] = {
    "classes": {},
    "pairs": {"text_pair": True},
    "regression": {"task": "regression", "labels": ("score",)},
    "multilabel": {"task": "multilabel", "thresholds": [0.5, 0.5, 0.5]},
}


@pytest.fixture(params=list(KINDS))
def client(
    request: pytest.FixtureRequest, make_bundle: Callable[..., Path]
) -> Iterator[TestClient]:
    app = create_app(make_bundle(**KINDS[request.param]), Settings(max_texts=7))
    with TestClient(app) as opened:
        yield opened


def test_the_document_is_valid_and_has_every_route(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    OpenAPIV31SpecValidator(document).validate()
    described = {
        (path, method.upper()) for path, item in document["paths"].items() for method in item
    }
    app: Any = client.app
    served = {(route.path, method) for route in app.routes for method in route.methods - {"HEAD"}}
    assert described == served
    statuses = {
        int(status)
        for item in document["paths"].values()
        for operation in item.values()
        for status in operation["responses"]
    }
    assert statuses - {200} == set(ERROR_TYPES) - {405}
    (many,) = (
        value
        for key, value in document["components"]["schemas"]["PredictBody"]["properties"].items()
        if key in ("texts", "pairs")
    )
    assert many["maxItems"] == 7


def test_examples_are_answered_as_described(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    tried = 0
    for template, item in document["paths"].items():
        for method, operation in item.items():
            path = template
            for parameter in operation.get("parameters", []):
                path = path.replace(f"{{{parameter['name']}}}", parameter["example"])
            content = operation.get("requestBody", {}).get("content", {})
            media = content.get("application/json", {})
            for example in media.get("examples", {"none": {}}).values():
                body = example.get("value")
                if body is not None:
                    assert conforms(document, media["schema"], body), (path, body)
                response = client.request(method, path, json=body)
                assert response.status_code == 200, (path, response.text)
                kind = response.headers["content-type"].partition(";")[0]
                told = operation["responses"]["200"]["content"][kind]["schema"]
                if kind == "application/json":
                    assert conforms(document, told, response.json()), (path, response.text)
                tried += 1
    assert tried > 20


@pytest.mark.parametrize("body", [{"text": ""}, {"text": "a", "texts": ["a"]}, {"txt": "a"}, {}])
def test_what_is_refused_is_outside_the_schema(bundle: Path, body: Any) -> None:
    with TestClient(create_app(bundle, Settings())) as client:
        document = client.get("/openapi.json").json()
        schema = document["paths"]["/predict"]["post"]["requestBody"]["content"]
        assert not conforms(document, schema["application/json"]["schema"], body)
        response = client.post("/predict", json=body)
        assert response.status_code == 422
        error = document["paths"]["/predict"]["post"]["responses"]["422"]["content"]
        assert conforms(document, error["application/json"]["schema"], response.json())


def conforms(document: dict[str, Any], schema: dict[str, Any], value: Any) -> bool:
    whole = {**schema, "components": document["components"]}
    return bool(Draft202012Validator(whole).is_valid(value))
