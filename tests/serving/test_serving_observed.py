"""What operators see: a line per request, traces, metrics; and no text of any user."""

from __future__ import annotations

import json
import logging
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from app_client import client_of, held_back
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from serving.logs import LineFormatter, read_trace_parent
from serving.predictor import Predictor
from serving.settings import Settings

GOOD = {"text": "a good film"}
SECRET = "my secret"  # a traceback quotes the line that raised, which must not hold the words


# ---- the log


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("values", "valid"),
    [
        ([f"00-{TRACE}-{SPAN}-01"], True),
        ([f"00-{TRACE}-{SPAN}-00"], True),
        ([f"00-{TRACE}-{SPAN}-ff"], True),
        ([f"cc-{TRACE}-{SPAN}-01"], True),
        ([f"cc-{TRACE}-{SPAN}-01-what-the-future-holds"], True),
        ([f"cc-{TRACE}-{SPAN}-01.what"], False),
        ([f"00-{TRACE}-{SPAN}-01-more"], False),
        ([f"00-{TRACE}-{SPAN}-01-"], False),
        ([f"ff-{TRACE}-{SPAN}-01"], False),
        ([f"00-{'0' * 32}-{SPAN}-01"], False),
        ([f"00-{TRACE}-{'0' * 16}-01"], False),
        ([f"00-{TRACE.upper()}-{SPAN}-01"], False),
        ([f"00-{TRACE[1:]}-{SPAN}-01"], False),
        ([f"00-{TRACE}-{SPAN}-1"], False),
        ([f"00-{TRACE}-{SPAN}"], False),
        ([f"0-{TRACE}-{SPAN}-01"], False),
        ([f" 00-{TRACE}-{SPAN}-01"], False),
        ([f"00-{TRACE}-{SPAN}-01\n"], False),
        ([f"00-{TRACE}-{SPAN}-01"] * 2, False),
        ([""], False),
        ([], False),
    ],
)
def test_trace_parents_by_the_letter(values: list[str], valid: bool) -> None:
    found = read_trace_parent([value.encode() for value in values])
    assert found == ((TRACE, SPAN) if valid else None)


@given(st.binary(max_size=70))
def test_no_trace_parent_is_made_of_anything_else(value: bytes) -> None:
    assert read_trace_parent([value]) is None


def lines(captured: str) -> list[dict[str, Any]]:
    """The log lines about requests."""
    return [json.loads(line) for line in captured.splitlines()]


def test_one_line_per_request(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with client_of(bundle) as client:
        trace = {"traceparent": f"00-{TRACE}-{SPAN}-01", "X-Request-Id": "mine"}
        client.post("/predict", json={"texts": ["my secret", "a"]}, headers=trace)
        client.post(
            "/predict?text=my+secret", content=b"my secret", headers={"traceparent": "00-x"}
        )
        client.get("/my-secret")
    first, second, third = lines(capsys.readouterr().err)
    when = first.pop("time")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", when)
    assert 0 < first.pop("duration_ms") < 10_000
    assert re.fullmatch("[0-9a-f]{16}", first.pop("span_id"))
    assert first == {
        "level": "info",
        "logger": "serving.request",
        "message": "request",
        "method": "POST",
        "route": "/predict",
        "status": 200,
        "texts": 2,
        "request_id": "mine",
        "trace_id": TRACE,
        "parent_id": SPAN,
    }
    assert (second["status"], second["texts"]) == (400, 0)
    assert "trace_id" not in second
    assert (third["route"], third["status"]) == ("none", 404)


def test_texts_are_logged_only_on_demand(
    predictor: Predictor,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(batch: Any) -> Any:
        raise KeyError(SECRET)

    for wanted in (False, True):
        with client_of(predictor, log_texts=wanted) as client, monkeypatch.context() as patch:
            client.post("/predict", json={"text": "my secret"})
            patch.setattr(predictor, "answer", fail)
            client.post("/predict", json={"text": "my secret"})
        shown = capsys.readouterr().err
        assert shown.count("my secret") == 2 * wanted
        assert caplog.text.count("my secret") == int(wanted)
        caplog.clear()


def test_the_log_can_be_text_quieter_or_without_requests(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for quiet in ({"log_requests": False}, {"log_level": "warning"}):
        with client_of(bundle, **quiet) as client:
            assert client.get("/v2").status_code == 200
        assert capsys.readouterr().err == ""
    with client_of(bundle, log_format="text") as client:
        client.get("/v2", headers={"X-Request-Id": "mine"})
    line = capsys.readouterr().err
    assert " info serving.request request method=GET route=/v2 status=200 duration_ms=" in line
    assert line.endswith(" texts=0 request_id=mine\n")


def test_probes_are_told_of_only_to_who_debugs(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for level, count in (("info", 0), ("debug", 3)):
        with client_of(bundle, log_level=level) as client:
            for path in ("/health", "/ready", "/metrics"):
                client.get(path)
        assert len(lines(capsys.readouterr().err)) == count


def test_others_messages_take_the_same_form_and_keep_quiet_about_texts() -> None:
    try:
        raise ValueError(SECRET)
    except ValueError as error:
        record = logging.LogRecord(
            "uvicorn.error", logging.ERROR, __file__, 1, "Failed %s", ("it",), None
        )
        record.exc_info = (ValueError, error, error.__traceback__)
    line = json.loads(LineFormatter(Settings(log_format="json")).format(record))
    assert (line["level"], line["logger"]) == ("error", "uvicorn.error")
    assert line["message"].startswith("Failed it: ValueError: (message withheld)\n")
    assert "test_serving_observed.py" in line["message"]
    assert "secret" not in json.dumps(line)
    text = LineFormatter(Settings(log_format="text", log_texts=True)).format(record)
    assert " error uvicorn.error Failed it: ValueError: my secret" in text


# ---- metrics


def read_metrics(client: Any) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every number by its name and labels, read by Prometheus' own parser."""
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def settled(client: Any, name: str, value: float) -> dict[Any, float]:
    """The metrics, once a number that a thread counts afterwards has come to a value."""
    end = time.monotonic() + 10
    while (found := read_metrics(client))[(name, ())] != value:
        assert time.monotonic() < end, found[(name, ())]
    return found


def test_what_is_counted(predictor: Predictor) -> None:
    with client_of(predictor, max_texts=4) as client:
        assert client.post("/predict", json={"texts": ["a", "a film"]}).status_code == 200
        assert client.post("/predict", json={"text": "bad " * 30}).status_code == 200
        assert client.post("/predict", json={"texts": ["a"] * 5}).status_code == 413
        assert client.get("/v2/models/tiny").status_code == 200
        assert client.get("/v2/models/other").status_code == 404
        for number in range(20):
            assert client.get(f"/nothing/{number}").status_code == 404
        found = settled(client, "serving_batch_texts_count", 2)

    def requests(route: str, status: int) -> float:
        labels = (("route", route), ("status", str(status)))
        return found.get(("serving_requests_total", labels), 0)

    assert requests("/predict", 200) == 2
    assert requests("/predict", 413) == 1
    assert requests("/v2/models/{name}", 200) == 1
    assert requests("/v2/models/{name}", 404) == 1
    assert requests("none", 404) == 20
    assert len([name for name, _ in found if name == "serving_requests_total"]) <= 6
    assert found["serving_refused_total", (("reason", "too_large"),)] == 1
    assert found["serving_refused_total", (("reason", "not_found"),)] == 21
    assert found["serving_request_seconds_count", (("route", "/predict"),)] == 3
    # by hand: [CLS] a [SEP] and [CLS] a film [SEP] make 2 x 4 tokens, one of them padding; then 16
    assert found["serving_batch_texts_sum", ()] == 3
    assert found["serving_batch_tokens_sum", ()] == 8 + 16
    assert found["serving_batch_tokens_bucket", (("le", "8.0"),)] == 1
    assert found["serving_padding_tokens_total", ()] == 1
    assert found["serving_truncated_texts_total", ()] == 1
    assert found["serving_queue_depth", ()] == 0
    for name, count in (("tokenization", 2), ("inference", 2), ("queue", 3)):
        assert found[f"serving_{name}_seconds_count", ()] == count
        assert 0 < found[f"serving_{name}_seconds_sum", ()] < 10
    digest = predictor.manifest.files["model.onnx"].sha256
    labels = (
        ("form", "fp32"),
        ("name", "tiny"),
        ("sha256", digest),
        ("version", "0123456789ab"),
    )
    assert found["serving_model_info", labels] == 1


def test_the_queue_depth_is_what_waits(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client_of(predictor) as client, ThreadPoolExecutor(1) as pool:
        with held_back(predictor, monkeypatch) as begun:
            waiting = pool.submit(client.post, "/predict", json={"texts": ["a", "a film", "bad"]})
            assert begun.wait(10)
            assert read_metrics(client)["serving_queue_depth", ()] == 3
        assert waiting.result().status_code == 200
        assert read_metrics(client)["serving_queue_depth", ()] == 0


def test_two_applications_count_apart(bundle: Path) -> None:
    with client_of(bundle) as one, client_of(bundle) as other:
        one.post("/predict", json=GOOD)
        assert "/predict" in one.get("/metrics").text
        assert "/predict" not in other.get("/metrics").text


def test_no_text_is_in_the_metrics(bundle: Path) -> None:
    with client_of(bundle) as client:
        client.post("/predict", json={"text": "my secret"}, headers={"X-Request-Id": "mysecret"})
        client.post("/secret/secret", json={"text": "my secret"})
        client.get("/v2/models/secret")
        client.request("SECRET", "/predict")
        assert "secret" not in client.get("/metrics").text
