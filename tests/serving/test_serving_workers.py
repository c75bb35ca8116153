"""Several processes on one port: counted together, reloaded together, replaced, stopped."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import httpx
import psutil
import pytest
from changing_bundle import load, point, two_bundles
from server_under_test import Running, finish, running, start, wait_until


@pytest.fixture
def link(tmp_path: Path) -> Path:
    """A link to a bundle, beside a second bundle with other labels."""
    return two_bundles(tmp_path)


def workers_of(server: Running) -> list[psutil.Process]:
    """The processes that answer."""
    return list(psutil.Process(server.process.pid).children())


def counted(server: Running, name: str) -> float:
    """One number of /metrics, whichever worker tells it."""
    told = httpx.get(f"{server.url}/metrics").text
    found = re.search(rf"^{re.escape(name)} (\S+)$", told, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_workers_share_the_port_the_count_the_reload_and_the_stop(link: Path) -> None:
    with running(link, "--workers", "2", SERVING_THREADS="1") as server:
        server.wait_for("Application startup complete", 2)
        assert len(workers_of(server)) == 2
        requests = 'serving_requests_total{route="/predict",status="200"}'
        with load(server.url) as asked:
            point(link, "two")
            server.process.send_signal(signal.SIGHUP)
            server.wait_for("reloaded: tiny ba9876543210", 2)
            # each asks twenty times, which are counted by two processes
            wait_until(lambda: len(asked.versions) > 40)
        assert asked.failures == []
        assert counted(server, requests) == len(asked.versions)
        assert counted(server, 'serving_reloads_total{outcome="done"}') == 2
        assert counted(server, "serving_queue_depth") == 0
        left = workers_of(server)
        mapped = {Path(item.path).parent for item in left[0].memory_maps()}
        (shared,) = [directory for directory in mapped if directory.name.startswith("serving-")]
        assert shared.is_dir()
        server.process.terminate()
        assert server.finish() == (0, "")
        assert not any(worker.is_running() for worker in left)
        assert not shared.exists()


def test_a_killed_worker_is_replaced_and_a_rolling_restart_fails_nobody(link: Path) -> None:
    with running(link, SERVING_WORKERS="2", SERVING_THREADS="1") as server:
        server.wait_for("Application startup complete", 2)
        first, second = workers_of(server)
        before = counted(server, 'serving_requests_total{route="/ready",status="200"}')
        first.kill()
        server.wait_for("Application startup complete", 3)
        assert f"worker {first.pid} ended with status -9; another starts" in server.messages()
        assert first.pid not in [worker.pid for worker in workers_of(server)]
        # what the dead one had counted is not forgotten
        assert counted(server, 'serving_requests_total{route="/ready",status="200"}') >= before
        with load(server.url) as asked:
            second.terminate()
            server.wait_for("Application startup complete", 4)
        assert asked.failures == []
        assert len(asked.versions) > 10
        server.process.terminate()
        assert server.finish() == (0, "")


def test_workers_do_not_outlive_their_parent(link: Path) -> None:
    with running(link, "--workers", "2", SERVING_THREADS="1") as server:
        server.wait_for("Application startup complete", 2)
        left = workers_of(server)
        os.kill(server.process.pid, signal.SIGKILL)
        wait_until(lambda: not any(worker.is_running() for worker in left))


def test_workers_that_cannot_start_end_the_whole(link: Path) -> None:
    (link / "model.onnx").unlink()
    status, stdout, stderr = finish(start(str(link), "--port", "0", "--workers", "2"))
    assert (status, stdout) == (1, "")
    assert stderr.startswith("error: ")
    assert "model.onnx is missing" in stderr
