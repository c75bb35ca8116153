"""Every status through HTTP, limits, and requests that must not disturb each other."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from serving.app import create_app
from serving.errors import BundleError
from serving.predictor import Prediction, Predictor
from serving.settings import Settings

with warnings.catch_warnings():
    # starlette would rather have httpx2; the development group has httpx, which it still takes
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

MakeBundle = Callable[..., Path]


@pytest.fixture
def client(predictor: Predictor) -> Iterator[TestClient]:
    """A running application with the default settings."""
    with TestClient(create_app(predictor, Settings())) as running:
        yield running


class HeldPredictor:
    """Makes a predictor's inference wait until it is let go, to fill the queue."""

    def __init__(self, predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
        self.release = threading.Event()
        self.started = threading.Semaphore(0)
        original = predictor.answer

        def held(batch: Any) -> list[Prediction]:
            self.started.release()
            assert self.release.wait(10)
            return original(batch)

        monkeypatch.setattr(predictor, "answer", held)


def assert_error(response: Any, status: int, error_type: str) -> dict[str, str]:
    """The one error body, whose id is also in the header."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body: dict[str, str] = response.json()
    assert set(body) == {"error", "error_type", "request_id"}
    assert body["error_type"] == error_type
    assert body["request_id"] == response.headers["x-request-id"]
    return body


def test_one_text(client: TestClient, predictor: Predictor) -> None:
    response = client.post("/predict", json={"text": "a good film"})
    assert response.status_code == 200
    body = response.json()
    assert body["model"] == {"name": "tiny", "version": "0123456789ab"}
    (prediction,) = body["predictions"]
    (expected,) = predictor.predict(["a good film"])
    by_label = {item["label"]: item["score"] for item in prediction["scores"]}
    assert by_label == dict(zip(predictor.labels, expected.scores, strict=True))
    assert prediction["score"] == max(expected.scores) == by_label[prediction["label"]]
    assert (prediction["tokens"], prediction["truncated"]) == (5, False)


def test_batch_equals_singles_in_order(client: TestClient) -> None:
    texts = ["the film was very very good", "bad", "a fine film", "not", "bad " * 30]
    together = client.post("/predict", json={"texts": texts}).json()["predictions"]
    for text, answer in zip(texts, together, strict=True):
        (alone,) = client.post("/predict", json={"text": text}).json()["predictions"]
        assert alone["label"] == answer["label"]
        assert alone["score"] == pytest.approx(answer["score"], abs=1e-6)
        assert alone["tokens"] == answer["tokens"]
    assert [answer["truncated"] for answer in together] == [False] * 4 + [True]


def test_pairs_and_regression(make_bundle: MakeBundle) -> None:
    predictor = Predictor.open(make_bundle(task="regression", text_pair=True))
    with TestClient(create_app(predictor, Settings())) as client:
        response = client.post(
            "/predict", json={"pairs": [["good film", "bad"], ["bad", "good film"]]}
        )
        single = client.post("/predict", json={"pair": ["good film", "bad"]})
    values = [item["value"] for item in response.json()["predictions"]]
    assert values[0] != values[1]
    assert single.json()["predictions"][0]["value"] == pytest.approx(values[0], abs=1e-6)


def test_app_opens_a_bundle_by_its_path(bundle: Path, tmp_path: Path) -> None:
    with TestClient(create_app(bundle, Settings())) as client:
        assert client.get("/ready").status_code == 200
    with pytest.raises(BundleError):
        create_app(tmp_path, Settings())


def test_health_and_readiness(client: TestClient) -> None:
    assert client.get("/health").json() == {"live": True}
    ready = client.get("/ready")
    assert ready.status_code == 200
    assert ready.json() == {"ready": True, "model": {"name": "tiny", "version": "0123456789ab"}}


def test_503_before_start_and_after_stop(predictor: Predictor) -> None:
    app = create_app(predictor, Settings())
    idle = TestClient(app)  # without `with` the lifespan has not begun
    for _ in range(2):
        assert_error(idle.get("/ready"), 503, "unhealthy")
        assert_error(idle.post("/predict", json={"text": "good"}), 503, "unhealthy")
        assert idle.get("/health").status_code == 200
        with TestClient(app) as running:
            assert running.get("/ready").status_code == 200


def test_503_when_an_inference_thread_dies(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.get("/ready").status_code == 200
    is_alive = threading.Thread.is_alive
    monkeypatch.setattr(
        threading.Thread,
        "is_alive",
        lambda thread: not thread.name.startswith("inference") and is_alive(thread),
    )
    assert_error(client.get("/ready"), 503, "unhealthy")
    assert_error(client.post("/predict", json={"text": "good"}), 503, "unhealthy")


@pytest.mark.parametrize(
    ("body", "status", "error_type"),
    [
        (b"", 400, "malformed"),
        (b"{", 400, "malformed"),
        (b"{}", 422, "validation"),
        (b'{"text": ""}', 422, "validation"),
        (b'{"pair": ["a", "b"]}', 422, "validation"),
        (json.dumps({"text": "a" * 20_001}).encode(), 422, "validation"),
        (json.dumps({"texts": ["a"] * 33}).encode(), 413, "too_large"),
    ],
)
def test_refused_bodies(client: TestClient, body: bytes, status: int, error_type: str) -> None:
    assert_error(client.post("/predict", content=body), status, error_type)


def test_limits_are_inclusive(client: TestClient) -> None:
    assert client.post("/predict", json={"texts": ["a"] * 32}).status_code == 200
    assert client.post("/predict", json={"text": "a" * 20_000}).status_code == 200


@pytest.mark.parametrize("path", ["/v1", "/predict/", "/nothing"])
def test_404(client: TestClient, path: str) -> None:
    assert_error(client.post(path, json={"text": "good"}), 404, "not_found")


@pytest.mark.parametrize(("method", "path"), [("GET", "/predict"), ("POST", "/ready")])
def test_405_names_what_is_allowed(client: TestClient, method: str, path: str) -> None:
    response = client.request(method, path)
    assert_error(response, 405, "method_not_allowed")
    assert ("POST" if path == "/predict" else "GET") in response.headers["allow"]


def test_415_for_compressed_bodies(client: TestClient) -> None:
    response = client.post("/predict", content=b"x", headers={"Content-Encoding": "gzip"})
    assert_error(response, 415, "unsupported_media_type")


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("excess", [0, 1, 5000])
def test_body_limit_with_and_without_length(
    predictor: Predictor, announced: bool, excess: int
) -> None:
    body = b'{"text": "good"}'.ljust(100 + excess)

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(body), 30):
            yield body[start : start + 30]

    with TestClient(create_app(predictor, Settings(max_body_bytes=100))) as client:
        response = client.post("/predict", content=body if announced else chunks())
        assert ("content-length" in response.request.headers) == announced
    if excess:
        assert "more than 100 bytes" in assert_error(response, 413, "too_large")["error"]
    else:
        assert response.status_code == 200


def test_body_is_not_read_without_end(predictor: Predictor) -> None:
    sent = 0

    async def receive() -> dict[str, Any]:
        nonlocal sent
        sent += 1
        assert sent < 100, "an endless body is read for ever"
        return {"type": "http.request", "body": b" " * 100, "more_body": True}

    statuses = []

    async def send(message: Any) -> None:
        statuses.append(message.get("status"))

    app = create_app(predictor, Settings(max_body_bytes=100))
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": []}
    asyncio.run(app(scope, receive, send))
    assert statuses[0] == 413


def test_poisoned_text_fails_alone(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with ThreadPoolExecutor(8) as pool:
        texts = ["good", "poison", "bad", "nanny"] * 6
        responses = list(pool.map(lambda t: client.post("/predict", json={"text": t}), texts))
    for text, response in zip(texts, responses, strict=True):
        if text in ("poison", "nanny"):
            body = assert_error(response, 500, "backend")
            assert body["request_id"] in body["error"]
            assert f"request {body['request_id']} failed: InferenceError" in caplog.text
        else:
            assert response.status_code == 200
    assert "poison" not in caplog.text
    assert "nanny" not in caplog.text
    assert client.get("/ready").status_code == 200


def test_unexpected_failure_is_logged_without_its_message(
    client: TestClient,
    predictor: Predictor,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    text = "my secret"

    def fail(batch: Any) -> list[Prediction]:
        raise KeyError(text)

    monkeypatch.setattr(predictor, "answer", fail)
    response = client.post("/predict", json={"text": text})
    assert "secret" not in assert_error(response, 500, "backend")["error"]
    (record,) = [item for item in caplog.records if item.levelno == logging.ERROR]
    assert "KeyError" in record.getMessage()
    assert "in fail" in record.getMessage()
    assert "secret" not in caplog.text


def test_full_queue_is_429_counted_in_texts(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = HeldPredictor(predictor, monkeypatch)
    app = create_app(predictor, Settings(queue_limit=4, max_texts=4))
    with TestClient(app) as client, ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(client.post, "/predict", json={"texts": ["a", "b", "c"]})
        assert held.started.acquire(timeout=10)
        begin = time.monotonic()
        refused = client.post("/predict", json={"texts": ["d", "e"]})
        assert time.monotonic() - begin >= 0.25  # held back, so that retries do not flood
        fits = pool.submit(client.post, "/predict", json={"text": "f"})
        assert_error(refused, 429, "overloaded")
        assert refused.headers["retry-after"] == "1"
        held.release.set()
        assert len(waiting.result().json()["predictions"]) == 3
        assert fits.result().status_code == 200
        # what was counted in has been counted out
        assert client.post("/predict", json={"texts": ["a"] * 4}).status_code == 200


def test_health_answers_while_inference_is_busy(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = HeldPredictor(predictor, monkeypatch)
    with TestClient(create_app(predictor, Settings())) as client, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.post, "/predict", json={"text": "good"})
        assert held.started.acquire(timeout=10)
        assert client.get("/health").status_code == 200
        assert client.get("/ready").status_code == 200
        assert not waiting.done()
        held.release.set()
        assert waiting.result().status_code == 200


def test_threads_run_side_by_side(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    held = HeldPredictor(predictor, monkeypatch)
    with (
        TestClient(create_app(predictor, Settings(threads=2))) as client,
        ThreadPoolExecutor(3) as pool,
    ):
        waiting = []
        for _ in range(2):
            waiting.append(pool.submit(client.post, "/predict", json={"text": "a"}))
            assert held.started.acquire(timeout=10)
        waiting.append(pool.submit(client.post, "/predict", json={"text": "a"}))
        assert not held.started.acquire(timeout=0.1)  # the third waits for a thread
        held.release.set()
        assert [item.result().status_code for item in waiting] == [200, 200, 200]


def test_failing_warm_up_stops_the_start(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("cold")

    monkeypatch.setattr(predictor, "warm_up", fail)
    with (
        pytest.raises(RuntimeError, match="cold"),
        TestClient(create_app(predictor, Settings(threads=2))),
    ):
        pass


@pytest.mark.parametrize("given", ["abc-1.2_3", "x" * 128])
def test_sane_request_id_is_kept(client: TestClient, given: str) -> None:
    for path in ("/health", "/nothing"):
        response = client.get(path, headers={"X-Request-Id": given})
        assert response.headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, '"quoted"', "\u00fc".encode()])
def test_other_request_ids_are_replaced(client: TestClient, given: str) -> None:
    seen = {
        client.get("/health", headers={"X-Request-Id": given}).headers["x-request-id"]
        for _ in range(2)
    }
    assert len(seen) == 2
    assert all(len(item) == 32 and int(item, 16) for item in seen)


def test_what_is_allowed_names_every_method_of_a_path(client: TestClient) -> None:
    assert client.options("/").headers["allow"] == "GET, HEAD, POST"
    assert client.get("/predict").headers["allow"] == "POST"
