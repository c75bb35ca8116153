"""Every status of the table and no other; who is let in."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from app_client import TestClient, client_of, held_back
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_client import HEAD, Client
from server_thread import serving
from starlette.responses import HTMLResponse
from starlette.routing import Route

from serving.app import create_app
from serving.asking import ERROR_TYPES
from serving.errors import SettingsError
from serving.predictor import Predictor
from serving.settings import Settings

GOOD = {"text": "a good film"}


def test_every_status_of_the_table_is_sent(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Settings(
        threads=1,
        tokens="secret",
        read_seconds=0.5,
        deadline_seconds=0.7,
        queue_limit=4,
        max_texts=4,
        max_connections=20,
    )
    seen = {}
    with (
        serving(predictor, small) as port,
        httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": "Bearer secret"}
        ) as client,
    ):

        def post(**given: Any) -> int:
            answer = client.post("/predict", **given)
            assert answer.json().get("error_type") == ERROR_TYPES.get(answer.status_code)
            assert answer.headers["x-content-type-options"] == "nosniff"
            return answer.status_code

        assert post(json=GOOD) == 200
        seen[400] = post(content=b"{")
        seen[401] = post(json=GOOD, headers={"Authorization": "Bearer guess"})
        seen[404] = client.get("/nothing").status_code
        seen[405] = client.put("/predict").status_code
        seen[408] = Client(port).send(HEAD).answer()[0]
        seen[413] = post(json={"texts": ["a"] * 5})
        seen[415] = post(content=b"x", headers={"Content-Encoding": "gzip"})
        seen[422] = post(json={"texts": []})
        seen[431] = Client(port).send(HEAD + b"X: " + b"x" * 20_000 + b"\r\n\r\n").answer()[0]
        seen[500] = post(json={"text": "poison"})
        with held_back(predictor, monkeypatch) as begun, ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(client.post, "/predict", json={"texts": ["a"] * 4})
            assert begun.wait(10)
            seen[429] = post(json=GOOD)
            seen[504] = waiting.result().status_code
        crowd = [Client(port) for _ in range(20)]
        time.sleep(0.1)
        with httpx.Client() as another:
            answer = another.get(f"http://127.0.0.1:{port}/v2")
            seen[503] = answer.status_code
        del crowd
    assert seen == {status: status for status in ERROR_TYPES}


METHODS = st.sampled_from(["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "ODD"])
PATHS = st.sampled_from(
    ["/", "/predict", "/health", "/ready", "/metrics", "/v2", "/v2/models/tiny/infer", "/%00", "//"]
) | st.text("ab/%.~ü", max_size=9).map("/".__add__)
HEADERS = st.dictionaries(
    st.sampled_from(["Content-Type", "Content-Encoding", "Authorization", "traceparent", "Accept"]),
    st.sampled_from(["", "gzip", "application/json", "multipart/form-data", "Bearer", "a" * 99]),
)
BODIES = st.binary(max_size=20) | st.sampled_from(
    [b"{}", b'{"text": "a"}', b'{"inputs": "a"}', b'{"inputs": [[]]}', b'{"text": "poison"}']
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(method=METHODS, path=PATHS, headers=HEADERS, body=BODIES)
def test_no_other_status_is_ever_sent(
    shared_client: TestClient, method: str, path: str, headers: dict[str, str], body: bytes
) -> None:
    answer = shared_client.request(
        method, f"http://testserver{path}", headers=headers, content=body
    )
    assert answer.headers["x-content-type-options"] == "nosniff"
    if answer.status_code != 200:
        assert answer.status_code in ERROR_TYPES
        if method != "HEAD":
            assert answer.json()["error_type"] == ERROR_TYPES[answer.status_code]


@pytest.fixture(scope="module")
def shared_client(bundle: Path) -> Iterator[TestClient]:
    """One application for many small requests."""
    with client_of(bundle) as client:
        yield client


@pytest.mark.parametrize(
    ("media", "status"),
    [
        (None, 200),
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("APPLICATION/JSON", 200),
        ("application/vnd.api+json", 200),
        ("application/x-www-form-urlencoded", 200),  # what `curl -d` says
        ("text/plain;charset=UTF-8", 200),  # what a browser's fetch says of a string
        ("multipart/form-data; boundary=x", 415),
        ("application/xml", 415),
        ("image/png", 415),
    ],
)
def test_media_types(shared_client: TestClient, media: str | None, status: int) -> None:
    headers = {"Content-Type": media} if media else {}
    answer = shared_client.post("/predict", content=json.dumps(GOOD), headers=headers)
    assert answer.status_code == status
    if status == 415:
        assert "send application/json" in answer.json()["error"]


def test_a_text_whose_deadline_passed_is_not_run(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []
    with client_of(predictor, deadline_seconds=0.3) as client, ThreadPoolExecutor(2) as pool:
        with held_back(predictor, monkeypatch) as begun:
            first = pool.submit(client.post, "/predict", json={"text": "a"})
            assert begun.wait(10)
            late = pool.submit(client.post, "/predict", json={"texts": ["good", "bad"]})
            assert late.result().status_code == 504
            assert first.result().status_code == 504  # it is running, but nobody waits so long
        original = predictor.answer
        monkeypatch.setattr(
            predictor, "answer", lambda batch: ran.append(len(batch)) or original(batch)
        )
        assert client.post("/predict", json={"text": "a"}).status_code == 200
    assert ran == [1]


# ---- tokens


@pytest.mark.parametrize(
    ("given_header", "status"),
    [
        (None, 401),
        ("Bearer one", 200),
        ("bearer two", 200),
        ("Bearer  two ", 200),
        ("Bearer onetwo", 401),
        ("Bearer on", 401),
        ("Bearer ", 401),
        ("Basic one", 401),
        ("one", 401),
        ("Bearer \u00fc".encode(), 401),
    ],
)
def test_only_who_has_a_token_is_let_in(
    bundle: Path, given_header: str | bytes | None, status: int
) -> None:
    headers = {"Authorization": given_header} if given_header else {}
    with client_of(bundle, tokens="one, two") as client:
        for path in ("/predict", "/nothing", "/metrics", "/v2"):
            answer = client.request(
                "POST" if path == "/predict" else "GET", path, headers=headers, json=GOOD
            )
            assert (answer.status_code == 401) == (status == 401)
            if status == 401:
                assert answer.headers["www-authenticate"] == "Bearer"
        for path in ("/health", "/ready", "/v2/health/live", "/v2/health/ready"):
            assert client.get(path).status_code == 200


def test_metrics_may_be_open(bundle: Path) -> None:
    with client_of(bundle, tokens="one", metrics_open=True) as client:
        assert client.get("/metrics").status_code == 200
        assert client.get("/v2").status_code == 401


def test_tokens_of_a_file_change_without_a_restart(
    bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "tokens"
    file.write_text("old\n\n also \n")

    def allowed() -> list[str]:
        return [
            token
            for token in ("env", "old", "also", "new")
            if client.get("/v2", headers={"Authorization": f"Bearer {token}"}).status_code == 200
        ]

    def write(content: bytes) -> None:
        fresh = tmp_path / "fresh"  # as Kubernetes does: another file under the name
        fresh.write_bytes(content)
        fresh.replace(file)

    with client_of(bundle, tokens="env", tokens_file=str(file)) as client:
        assert allowed() == ["env", "old", "also"]
        write(b"new")
        assert allowed() == ["env", "new"]
        for wrong in (b"", b"\n", b"\xff\xfe"):
            write(wrong)
            assert allowed() == ["env", "new"]
        file.unlink()
        assert allowed() == ["env", "new"]
        write(b"old")
        assert allowed() == ["env", "old"]
    assert "no token in it" in caplog.text
    assert "No such file" in caplog.text
    assert "new" not in caplog.text.replace("news", "")


@pytest.mark.parametrize("content", [None, b"", b"\n \n", b"\xff"])
def test_a_file_without_tokens_stops_the_start(
    predictor: Predictor, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "tokens"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match="SERVING_TOKENS_FILE"):
        create_app(predictor, Settings(tokens_file=str(file)))
    with pytest.raises(SettingsError, match="SERVING_TOKENS holds no token"):
        create_app(predictor, Settings(tokens=" , "))


def test_pages_carry_what_protects_them(predictor: Predictor) -> None:
    app = create_app(predictor, Settings(threads=1))
    own = {"content-security-policy": "default-src 'none'; style-src 'sha256-x'"}

    async def page(_: Any) -> HTMLResponse:
        return HTMLResponse("<p>")

    async def own_page(_: Any) -> HTMLResponse:
        return HTMLResponse("<p>", headers=own)

    app.router.routes += [Route("/page", page), Route("/own", own_page)]
    with TestClient(app) as client:
        headers = client.get("/page").headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert (
            client.get("/own").headers["content-security-policy"] == own["content-security-policy"]
        )
        assert "content-security-policy" not in client.get("/v2").headers
