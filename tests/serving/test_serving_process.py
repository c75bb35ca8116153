"""The real server in a process of its own: start, answer, stop, and refuse to start."""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest
from server_under_test import finish, running, start

from serving.__main__ import run
from serving.errors import MissingDependencyError
from serving.settings import Settings

MakeBundle = Callable[..., Path]


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_start_predict_and_stop(bundle: Path, stop: signal.Signals) -> None:
    with running(bundle, SERVING_LOG_LEVEL="info") as server:
        response = httpx.post(f"{server.url}/predict", json={"text": "a good film"})
        assert response.status_code == 200
        assert response.json()["predictions"][0]["tokens"] == 5
        server.process.send_signal(stop)
        assert server.finish() == (0, "")
        assert {line["level"] for line in server.log()} == {"info"}


def test_request_in_flight_is_answered_before_the_stop(bundle: Path) -> None:
    body = b'{"text": "good"}'
    with running(bundle) as server:
        with socket.create_connection(server.address, timeout=20) as connection:
            head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body[:5])
            time.sleep(0.3)  # the server has the head and waits for the rest
            server.process.terminate()
            time.sleep(0.3)
            connection.sendall(body[5:])
            answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert server.finish()[0] == 0


def test_refusal_of_a_large_body_reaches_the_client(bundle: Path) -> None:
    with running(bundle) as server:
        for size in (3, 12):
            # unlike httpx, this client gives up when it cannot send all of its body
            connection = HTTPConnection(*server.address, timeout=20)
            connection.request("POST", "/predict", b" " * (size * 1024 * 1024))
            response = connection.getresponse()
            assert response.status == 413
            assert response.headers["connection"] == "close"
            assert json.loads(response.read())["error_type"] == "too_large"
            connection.close()
        assert httpx.get(f"{server.url}/ready").status_code == 200


def test_failed_inference_leaves_the_text_out_of_the_log(bundle: Path) -> None:
    with running(bundle) as server:
        for text, status in (("poison", 500), ("good", 200)):
            answer = httpx.post(f"{server.url}/predict", json={"text": text})
            assert answer.status_code == status
        server.process.terminate()
        assert server.finish() == (0, "")
        log = server.stderr.read_text()
    assert "InferenceError" in log
    assert "poison" not in log


def test_port_in_use(bundle: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        status, stdout, stderr = finish(start(str(bundle), "--port", port))
    assert (status, stdout) == (1, "")
    assert stderr.startswith(f"error: cannot listen on 127.0.0.1 port {port} (Address already")
    assert stderr.count("\n") == 1


def test_corrupted_bundle_is_refused(make_bundle: MakeBundle) -> None:
    directory = make_bundle()
    content = bytearray((directory / "model.onnx").read_bytes())
    content[100] ^= 1
    (directory / "model.onnx").write_bytes(content)
    status, stdout, stderr = finish(start(str(directory), "--port", "0"))
    assert (status, stdout) == (1, "")
    assert stderr.startswith(f"error: {directory}: model.onnx has sha256")
    assert stderr.count("\n") == 1


def test_provider_that_is_absent(bundle: Path) -> None:
    process = start(str(bundle), "--port", "0", SERVING_PROVIDER="cuda")
    status, _, stderr = finish(process)
    assert status == 1
    assert stderr.startswith("error: CUDAExecutionProvider is not in this onnxruntime")


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        ([], {"SERVING_PROT": "1", "SERVING_THREADS": "0"}, "SERVING_PROT is not a setting"),
        (["--port", "many"], {}, "SERVING_PORT is 'many'"),
    ],
)
def test_bad_settings_exit_with_2(
    bundle: Path, arguments: list[str], variables: dict[str, str], message: str
) -> None:
    status, stdout, stderr = finish(start(str(bundle), *arguments, **variables))
    assert (status, stdout) == (2, "")
    assert stderr.startswith("error: ")
    assert message in stderr


def test_help_lists_the_variables() -> None:
    status, stdout, _ = finish(start("--help"))
    assert status == 0
    assert "SERVING_QUEUE_LIMIT=256" in stdout


def test_missing_server_names_the_remedy(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "serving.server", raising=False)
    with pytest.raises(MissingDependencyError, match=r"uvicorn is not installed; run: pip install"):
        run(bundle, Settings(port=0))
