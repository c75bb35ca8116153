"""The shapes of other servers' protocols, to the letter, and their own clients where they exist."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

from serving.app import create_app
from serving.open_inference import LENGTH_HEADER
from serving.predictor import Predictor
from serving.settings import Settings

with warnings.catch_warnings():
    # starlette would rather have httpx2; the development group has httpx, which it still takes
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

LONG = "good " * 40


@pytest.fixture
def client(predictor: Predictor) -> Iterator[TestClient]:
    """The tiny classification bundle behind the application."""
    with TestClient(create_app(predictor, Settings())) as opened:
        yield opened


@pytest.fixture(scope="module")
def steady(bundle: Path) -> Iterator[TestClient]:
    """One application for all the examples of a property."""
    with TestClient(create_app(bundle, Settings())) as opened:
        yield opened


@pytest.fixture
def pairs(make_bundle: Callable[..., Path]) -> Iterator[TestClient]:
    """A bundle for pairs of texts."""
    with TestClient(create_app(make_bundle(text_pair=True), Settings())) as opened:
        yield opened


@contextmanager
def listening(predictor: Predictor) -> Iterator[str]:
    """The application behind a real socket; gives host:port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = uvicorn.Server(
            uvicorn.Config(create_app(predictor, Settings()), log_config=None, ws="none")
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


def by_label(predictor: Predictor, text: str) -> dict[str, float]:
    """What the model answers for one text."""
    (prediction,) = predictor.predict([text])
    return dict(zip(predictor.labels, prediction.scores, strict=True))


def test_tei_single_batch_and_their_order(client: TestClient, predictor: Predictor) -> None:
    """https://huggingface.github.io/text-embeddings-inference: a list per input, best first."""
    single = client.post("/predict", json={"inputs": "a good film"}).json()
    expected = by_label(predictor, "a good film")
    assert {item["label"]: item["score"] for item in single} == pytest.approx(expected)
    assert [item["score"] for item in single] == sorted(expected.values(), reverse=True)
    assert client.post("/predict", json={"inputs": ["a good film"]}).json() == single
    batch = client.post("/predict", json={"inputs": [["a good film"], ["bad"]]}).json()
    assert [len(item) for item in batch] == [3, 3]
    assert {item["label"]: item["score"] for item in batch[1]} == pytest.approx(
        by_label(predictor, "bad")
    )


def test_tei_two_texts_are_one_pair(pairs: TestClient) -> None:
    single = pairs.post("/predict", json={"inputs": ["a film", "bad"]}).json()
    assert [set(item) for item in single] == [{"label", "score"}] * 3
    batch = pairs.post("/predict", json={"inputs": [["a film", "bad"], ["bad", "a film"]]}).json()
    assert [item["label"] for item in batch[0]] == [item["label"] for item in single]
    scores = [[item["score"] for item in answer] for answer in (batch[0], single)]
    assert scores[0] == pytest.approx(scores[1])
    assert batch[1] != single


def test_tei_raw_scores_and_truncate(client: TestClient, predictor: Predictor) -> None:
    raw = client.post("/predict", json={"inputs": "good", "raw_scores": True}).json()
    (logits,) = predictor.logits(["good"]).tolist()
    assert [item["score"] for item in raw] == pytest.approx(sorted(logits, reverse=True))
    assert client.post("/predict", json={"inputs": LONG, "truncate": True}).status_code == 200
    refused = client.post("/predict", json={"inputs": LONG})
    assert refused.status_code == 422
    assert {"error", "error_type"} <= set(refused.json())
    assert "more than" in refused.json()["error"]


@pytest.mark.parametrize(
    "inputs", [["a", "b"], [["a", "b"]], [], [["a"], "b"], "", [[]], 3, {"text": "a"}]
)
def test_tei_inputs_that_are_refused(client: TestClient, inputs: Any) -> None:
    response = client.post("/predict", json={"inputs": inputs})
    assert response.status_code == 422, response.text


HUB_CLIENT = """
import json, sys
from huggingface_hub import InferenceClient
client = InferenceClient(model=sys.argv[1])
for options in ({}, {"top_k": 1}, {"function_to_apply": "none"}):
    found = client.text_classification("a good film", **options)
    print(json.dumps({item.label: item.score for item in found}))
"""


def test_the_hugging_face_client(predictor: Predictor) -> None:
    """In a process of its own: here the library is told to stay offline."""
    with listening(predictor) as address:
        done = subprocess.run(
            [sys.executable, "-c", HUB_CLIENT, f"http://{address}"],
            env={**os.environ, "HF_HUB_OFFLINE": "0"},
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    found, best, raw = map(json.loads, done.stdout.splitlines())
    expected = by_label(predictor, "a good film")
    assert found == pytest.approx(expected)
    assert best == pytest.approx({max(expected, key=expected.__getitem__): max(expected.values())})
    (logits,) = predictor.logits(["a good film"]).tolist()
    assert raw == pytest.approx(dict(zip(predictor.labels, logits, strict=True)))


@pytest.mark.parametrize("path", ["/", "/predict"])
def test_hugging_face_lists_are_batches(client: TestClient, path: str) -> None:
    body = {"inputs": ["good", {"text": "bad"}], "parameters": {"function_to_apply": "sigmoid"}}
    answers = client.post(path, json=body).json()
    assert [len(item) for item in answers] == [3, 3]
    assert sum(item["score"] for item in answers[0]) != pytest.approx(1)
    refused = {"inputs": LONG, "parameters": {"truncation": False}}
    assert client.post(path, json=refused).status_code == 422
    refused = {"inputs": {"text": "a", "text_pair": "b"}, "parameters": {}}
    assert client.post(path, json=refused).status_code == 422


def test_hugging_face_pairs(pairs: TestClient) -> None:
    body = {"inputs": [{"text": "a film", "text_pair": "bad"}]}
    expected = pairs.post("/predict", json={"inputs": ["a film", "bad"]}).json()
    assert pairs.post("/", json=body).json() == [expected]


@pytest.mark.parametrize("binary", [True, False])
def test_the_triton_client(predictor: Predictor, binary: bool) -> None:
    texts = np.array(["a good film", "bad", "Zürich 日本"], dtype=object)
    with listening(predictor) as address:
        client = triton.InferenceServerClient(address)
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("tiny")
        assert client.is_model_ready("tiny", predictor.version)
        assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
        metadata = client.get_model_metadata("tiny")
        asked = triton.InferInput("text", [3], "BYTES")
        asked.set_data_from_numpy(texts, binary_data=binary)
        answer = client.infer("tiny", [asked], request_id="7")
        wish = triton.InferRequestedOutput("scores", binary_data=not binary)
        scores = client.infer("tiny", [asked], outputs=[wish]).as_numpy("scores")
        tokens = [[2, 14, 8, 3, 0], [2, 9, 3, 0, 0]]
        ids = triton.InferInput("input_ids", [2, 5], "INT64")
        ids.set_data_from_numpy(np.array(tokens, dtype=np.int64), binary_data=binary)
        mask = triton.InferInput("attention_mask", [2, 5], "INT64")
        kept = (np.array(tokens) > 0).astype(np.int64)
        mask.set_data_from_numpy(kept, binary_data=binary)
        from_ids = client.infer("tiny", [ids, mask]).as_numpy("logits")
        with pytest.raises(InferenceServerException, match="no model 'other'"):
            client.infer("other", [asked])
        client.close()
    expected = predictor.predict(list(texts))
    assert answer.get_response()["id"] == "7"
    assert {item["name"] for item in metadata["outputs"]} == {"label", "scores", "logits"}
    np.testing.assert_allclose(scores, [item.scores for item in expected], atol=1e-6)
    best = [predictor.labels[int(np.argmax(item.scores))] for item in expected]
    labels = answer.as_numpy("label")
    assert [item.decode() if isinstance(item, bytes) else item for item in labels] == best
    alone = [token for token in tokens[1] if token]
    short = {"name": "input_ids", "shape": [1, 3], "datatype": "INT64", "data": [alone]}
    with TestClient(create_app(predictor, Settings())) as local:
        (logits,) = (
            item["data"]
            for item in local.post("/v2/models/tiny/infer", json={"inputs": [short]}).json()[
                "outputs"
            ]
            if item["name"] == "logits"
        )
    np.testing.assert_allclose(from_ids[1], logits, atol=1e-6)


def tensor(**changes: Any) -> dict[str, Any]:
    """An input of two texts, with some of it changed."""
    return {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["good", "bad"]} | changes


def ids(data: list[list[int]], **changes: Any) -> dict[str, Any]:
    """An input of token ids."""
    shape = [len(data), len(data[0])]
    return {"name": "input_ids", "shape": shape, "datatype": "INT64", "data": data} | changes


@pytest.mark.parametrize(
    ("inputs", "status", "message"),
    [
        ([tensor(shape=[3])], 400, "2 numbers or texts for shape"),
        ([tensor(shape=[-2])], 400, "for shape"),
        ([tensor(shape=[2**63, 2])], 400, "for shape"),
        ([tensor(shape=[0, 2**70], data=[])], 422, "text is empty"),
        ([tensor(datatype="FP32", data=[1.0, 2.0])], 422, "none of BYTES"),
        ([tensor(data=["good", 1])], 400, "data is not BYTES"),
        ([tensor(data=[["good"], "bad"])], 400, "nested unevenly"),
        ([tensor(data="good")], 400, "has no data"),
        ([tensor(name="texts")], 422, "takes text, or input_ids"),
        ([], 422, "takes text"),
        ([tensor(), ids([[2, 3]])], 422, "not beside input_ids"),
        ([ids([[2, 9999, 3]])], 422, "go from 0 to"),
        ([ids([[2, -1, 3]])], 422, "go from 0 to"),
        ([ids([[2**70, 1]])], 400, "too large"),
        ([ids([[2] * 200])], 422, "200 tokens, at most"),
        ([ids([[2, 3]], shape=[2])], 422, "give one shape"),
        ([ids([[2, 8, 3]]), ids([[0, 1, 1]], name="attention_mask")], 422, "ones followed by"),
        ([ids([[2, 8, 3]]), ids([[1, 1]], name="attention_mask")], 422, "give one shape"),
        ([tensor(name="input_ids", shape=[1, 2])], 422, "INT64"),
        ([tensor(parameters={"binary_data_size": 9}, data=[])], 400, "9 bytes are not there"),
    ],
)
def test_tensors_that_are_refused(
    client: TestClient, inputs: list[dict[str, Any]], status: int, message: str
) -> None:
    response = client.post("/v2/models/tiny/infer", json={"inputs": inputs})
    assert response.status_code == status, response.text
    assert message in response.json()["error"]


@pytest.mark.parametrize(
    ("behind", "size", "header", "message"),
    [
        (b"\x04\0\0\0good", 8, None, None),
        (b"\x05\0\0\0good", 8, None, "behind the end"),
        (b"\x04\0\0", 3, None, "behind the end"),
        (b"\x01\0\0\0\xff", 5, None, "utf-8"),
        (b"\x04\0\0\0good!", 8, None, "1 bytes behind the JSON"),
        (b"\x04\0\0\0good", 8, "x", "is 'x'"),
        (b"\x04\0\0\0good", 8, "99999", "is '99999'"),
    ],
)
def test_binary_texts(
    client: TestClient, behind: bytes, size: int, header: str | None, message: str | None
) -> None:
    head = (
        b'{"inputs":[{"name":"text","shape":[1],"datatype":"BYTES",'
        b'"parameters":{"binary_data_size":%d}}]}' % size
    )
    headers = {LENGTH_HEADER: header or str(len(head))}
    response = client.post("/v2/models/tiny/infer", content=head + behind, headers=headers)
    assert response.status_code == (200 if message is None else 400), response.text
    if message:
        assert message in response.json()["error"]


def test_a_model_or_version_that_is_not_served(client: TestClient) -> None:
    for path in ("/v2/models/other", "/v2/models/tiny/versions/9", "/v2/models/other/ready"):
        response = client.get(path)
        assert response.status_code == 404
        assert "this server has 'tiny'" in response.json()["error"] or "0123" in response.text


def test_every_label_of_a_multilabel_model(make_bundle: Callable[..., Path]) -> None:
    predictor = Predictor.open(make_bundle(task="multilabel", thresholds=[0.5, 0.5, 0.5]))
    with TestClient(create_app(predictor, Settings())) as client:
        answer = client.post("/v2/models/tiny/infer", json={"inputs": [tensor()]}).json()
        outputs = {item["name"]: item for item in answer["outputs"]}
        assert outputs["applies"]["shape"] == [2, 3]
        applies = np.array(outputs["applies"]["data"])
        assert (applies == (np.array(outputs["scores"]["data"]) >= 0.5)).all()
        low = client.post("/predict", json={"text": "good", "threshold": 0.0}).json()
        assert len(low["predictions"][0]["labels"]) == 3
        high = client.post("/predict", json={"text": "good", "threshold": 1.0}).json()
        assert high["predictions"][0]["labels"] == []


def test_native_raw_scores_and_truncate(client: TestClient, predictor: Predictor) -> None:
    body = {"text": "good", "raw_scores": True}
    (answer,) = client.post("/predict", json=body).json()["predictions"]
    (logits,) = predictor.logits(["good"]).tolist()
    assert [item["score"] for item in answer["scores"]] == pytest.approx(
        sorted(logits, reverse=True)
    )
    assert client.post("/predict", json={"text": LONG, "truncate": False}).status_code == 422
    refused = client.post("/predict", json={"text": "good", "threshold": 0.5})
    assert (refused.status_code, refused.json()["error_type"]) == (422, "validation")


TEXTS = st.text(max_size=8)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
TENSORS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["text", "input_ids", "attention_mask", "token_type_ids"]) | TEXTS,
        "shape": st.lists(st.integers(-1, 3), max_size=3),
        "datatype": st.sampled_from(["BYTES", "INT64", "INT32", "FP32"]) | TEXTS,
        "data": st.lists(st.integers(-1, 99) | TEXTS | JSON, max_size=4),
    },
    optional={
        "parameters": st.dictionaries(st.sampled_from(["binary_data_size", "x"]), JSON, max_size=2)
    },
)
BODIES = st.one_of(
    JSON,
    st.fixed_dictionaries({"inputs": JSON}, optional={"parameters": JSON, "truncate": JSON}),
    st.fixed_dictionaries(
        {"inputs": st.lists(TENSORS, max_size=3)}, optional={"outputs": JSON, "parameters": JSON}
    ),
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=BODIES)
def test_no_body_breaks_the_server(steady: TestClient, body: Any) -> None:
    for path in ("/predict", "/", "/v2/models/tiny/infer"):
        response = steady.post(path, json=body)
        assert response.status_code in (200, 400, 413, 422), (path, response.text)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(content=st.binary(max_size=40), header=st.none() | st.text("0123456789-x", max_size=4))
def test_no_bytes_break_the_server(steady: TestClient, content: bytes, header: str | None) -> None:
    headers = {} if header is None else {LENGTH_HEADER: header}
    for path in ("/predict", "/", "/v2/models/tiny/infer"):
        response = steady.post(path, content=content, headers=headers)
        assert response.status_code in (200, 400, 413, 422), (path, response.text)
