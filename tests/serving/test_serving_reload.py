"""SIGHUP: another bundle answers, no request fails, a bad one changes nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from changing_bundle import LABELS, load, point, two_bundles
from raw_client import PREDICT, Client
from server_under_test import Running, finish, running, start, wait_until

from serving.engine import Engines
from serving.metrics import Metrics
from serving.predictor import Predictor
from serving.settings import Settings

MakeBundle = Callable[..., Path]


@pytest.fixture
def link(tmp_path: Path) -> Path:
    """A link to a bundle, beside a second bundle with other labels."""
    return two_bundles(tmp_path)


def reload(server: Running, count: int) -> None:
    """Ask for a reload, and wait until it is done for the count-th time."""
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("reloaded: tiny", count)


def test_no_request_fails_during_twenty_reloads_and_memory_stays(link: Path) -> None:
    with running(link, SERVING_THREADS="2", SERVING_LOG_REQUESTS="false") as server:
        watched = psutil.Process(server.process.pid)
        with load(server.url) as asked:
            for turn in range(1, 21):
                point(link, "two" if turn % 2 else "one")
                reload(server, turn)
                if turn == 4:
                    before = watched.memory_info().rss
            after = watched.memory_info().rss
        wait_until(lambda: watched.num_threads() <= 12)
        told = httpx.get(f"{server.url}/metrics").text
        server.process.terminate()
        assert server.finish() == (0, "")
    assert asked.failures == []
    assert set(asked.versions) == set(LABELS)
    assert after < before * 1.1
    assert 'serving_reloads_total{outcome="done"} 20.0' in told
    infos = [line for line in told.splitlines() if line.startswith("serving_model_info{")]
    live = {line.rpartition(" ")[2]: line for line in infos}
    assert 'version="0123456789ab"' in live["1.0"]
    assert 'version="ba9876543210"' in live["0.0"]


def test_a_bad_bundle_is_refused_with_the_reason(link: Path) -> None:
    with running(link) as server:
        model = link.parent / "two" / "model.onnx"
        model.write_bytes(model.read_bytes()[:-1])
        point(link, "two")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("reload refused")
        answer = httpx.post(f"{server.url}/predict", json={"text": "good"})
        assert answer.json()["model"]["version"] == "0123456789ab"
        assert httpx.get(f"{server.url}/ready").status_code == 200
        told = httpx.get(f"{server.url}/metrics").text
        assert 'serving_reloads_total{outcome="refused"} 1.0' in told
        (line,) = [line for line in server.log() if line["level"] == "error"]
        assert "model.onnx has" in line["message"]
        point(link, "one")
        reload(server, 1)


def test_a_reload_asked_for_during_the_start_is_done_after_it(link: Path, tmp_path: Path) -> None:
    def blocks_it(process: Any) -> bool:
        told = Path(f"/proc/{process.pid}/status").read_text()
        (blocked,) = [line.split()[1] for line in told.splitlines() if line.startswith("SigBlk")]
        return bool(int(blocked, 16) & 1 << (signal.SIGHUP - 1))

    log = tmp_path / "log"
    with log.open("w") as stderr:
        process = start(str(link), "--port", "0", stderr=stderr)
        try:
            wait_until(lambda: blocks_it(process))
            process.send_signal(signal.SIGHUP)
            wait_until(lambda: "reloaded: tiny" in log.read_text())
            process.terminate()
            assert finish(process)[0] == 0
        finally:
            process.kill()


def test_requests_under_way_end_on_the_bundle_they_began_with(
    link: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    original = Predictor.answer

    def held(self: Predictor, batch: Any) -> Any:
        assert release.wait(10)
        return original(self, batch)

    async def story() -> None:
        engines = Engines(link, Settings(threads=1), Metrics())
        await engines.start()
        monkeypatch.setattr(Predictor, "answer", held)
        with engines.current as first:
            asked = asyncio.create_task(first.scheduler.predict(["good"]))
            await asyncio.sleep(0)
            point(link, "two")
            reloading = asyncio.create_task(engines.reload())
            while engines.current is first:
                await asyncio.sleep(0.01)
            assert engines.current.predictor.version == "ba9876543210"
            assert not reloading.done()  # it waits for those that use the old one
            release.set()
            assert len(await asked) == 1
            assert first.scheduler.ready
        await reloading
        assert not first.scheduler.ready
        engines.close()

    asyncio.run(story())


def test_without_a_path_there_is_nothing_to_reload(predictor: Predictor) -> None:
    async def story() -> None:
        engines = Engines(predictor, Settings(threads=1), Metrics())
        await engines.start()
        await engines.reload()
        assert engines.current.predictor is predictor
        assert engines.current.scheduler.ready
        engines.close()

    asyncio.run(story())


def test_ready_ends_at_once_and_the_drain_goes_on_answering(bundle: Path) -> None:
    with running(bundle, SERVING_DRAIN_SECONDS="1.5") as server:
        server.process.terminate()
        begin = time.monotonic()
        wait_until(lambda: httpx.get(f"{server.url}/ready").status_code == 503, 1)
        answer = httpx.post(f"{server.url}/predict", json={"text": "good"})
        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert server.finish() == (0, "")
        assert 1.4 < time.monotonic() - begin < 5
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/health")


def test_sixty_four_in_flight_are_answered_before_the_stop(bundle: Path) -> None:
    with running(bundle, SERVING_THREADS="1") as server:
        os.kill(server.process.pid, signal.SIGSTOP)  # so that not even one is accepted yet
        clients = [Client(server.address[1]).send(PREDICT) for _ in range(64)]
        server.process.terminate()
        os.kill(server.process.pid, signal.SIGCONT)
        assert [client.answer()[0] for client in clients] == [200] * 64
        assert server.finish() == (0, "")
