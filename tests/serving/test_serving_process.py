"""The real server in a process of its own: start, answer, stop, and refuse to start."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest

from serving.__main__ import run
from serving.errors import MissingDependencyError
from serving.settings import Settings

ROOT = Path(__file__).parents[2]
MakeBundle = Callable[..., Path]


def start(*arguments: str, **variables: str) -> subprocess.Popen[str]:
    """`python -m serving` with nothing of the test's environment in its settings."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("SERVING_")}
    return subprocess.Popen(
        [sys.executable, "-m", "serving", *arguments],
        cwd=ROOT,
        env=inherited | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a process that ends by itself."""
    stdout, stderr = process.communicate(timeout=30)
    return process.returncode, stdout, stderr


@contextmanager
def running(bundle: Path, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server that is ready, and its address; killed if the test did not stop it."""
    process = start(str(bundle), "--port", "0", **variables)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("serving tiny 0123456789ab on http://127.0.0.1:"), line
        url = line.split()[-1]
        deadline = time.monotonic() + 30
        while httpx.get(f"{url}/ready", timeout=10).status_code != 200:
            assert time.monotonic() < deadline, "never ready"
            time.sleep(0.05)
        yield process, url
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_start_predict_and_stop(bundle: Path, stop: signal.Signals) -> None:
    with running(bundle) as (process, url):
        response = httpx.post(f"{url}/predict", json={"text": "a good film"})
        assert response.status_code == 200
        assert response.json()["predictions"][0]["tokens"] == 5
        process.send_signal(stop)
        assert finish(process) == (0, "", "")


def test_request_in_flight_is_answered_before_the_stop(bundle: Path) -> None:
    body = b'{"text": "good"}'
    with running(bundle) as (process, url):
        address = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
        with socket.create_connection(address, timeout=20) as connection:
            head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body[:5])
            time.sleep(0.3)  # the server has the head and waits for the rest
            process.terminate()
            time.sleep(0.3)
            connection.sendall(body[5:])
            answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert finish(process)[0] == 0


def test_refusal_of_a_large_body_reaches_the_client(bundle: Path) -> None:
    with running(bundle) as (_, url):
        for size in (3, 12):
            # unlike httpx, this client gives up when it cannot send all of its body
            connection = HTTPConnection("127.0.0.1", int(url.rsplit(":", 1)[1]), timeout=20)
            connection.request("POST", "/predict", b" " * (size * 1024 * 1024))
            response = connection.getresponse()
            assert response.status == 413
            assert response.headers["connection"] == "close"
            assert json.loads(response.read())["error_type"] == "too_large"
            connection.close()
        assert httpx.get(f"{url}/ready").status_code == 200


def test_failed_inference_leaves_the_text_out_of_the_log(bundle: Path) -> None:
    with running(bundle) as (process, url):
        assert httpx.post(f"{url}/predict", json={"text": "poison"}).status_code == 500
        assert httpx.post(f"{url}/predict", json={"text": "good"}).status_code == 200
        process.terminate()
        status, stdout, stderr = finish(process)
    assert (status, stdout) == (0, "")
    assert "InferenceError" in stderr
    assert "poison" not in stderr


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
    with pytest.raises(MissingDependencyError, match=r"uvicorn is not installed; run: pip install"):
        run(bundle, Settings())
