"""A store between processes: its lock, and what a killed process leaves."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from factory.errors import StoreError
from factory.store import ArtifactKey, Store

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "runs")


HOLD = """
import sys, time
from pathlib import Path
from factory.store import Store
with Store(Path(sys.argv[1])).locked():
    sys.stdout.write("held\\n")
    sys.stdout.flush()
    sys.stdin.read()
"""


@contextmanager
def holder_of(root: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of a store."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_until_the_first_is_killed(store: Store) -> None:
    with holder_of(store.root) as holder:
        with (
            pytest.raises(StoreError, match="another run is using this store") as caught,
            store.locked(),
        ):
            raise AssertionError("two holders")
        assert "--store DIRECTORY" in str(caught.value)
        holder.send_signal(signal.SIGKILL)
        assert holder.wait(timeout=10) == -signal.SIGKILL
        with store.locked():
            pass


def test_a_second_process_gets_the_lock_after_the_first_is_done(store: Store) -> None:
    with pytest.raises(RuntimeError, match="stage failed"), store.locked():
        raise RuntimeError("stage failed")
    with holder_of(store.root):
        pass
    with store.locked(), pytest.raises(StoreError), store.locked():
        raise AssertionError("two holders")


def test_two_stores_do_not_disturb_each_other(tmp_path: Path) -> None:
    with Store(tmp_path / "one").locked(), Store(tmp_path / "two").locked():
        assert (tmp_path / "one").is_dir()
        assert (tmp_path / "two").is_dir()


def test_a_killed_process_leaves_a_partial_directory_that_is_resumed(store: Store) -> None:
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from factory.store import ArtifactKey, Store\n"
        "def make(directory):\n"
        "    (directory / 'checkpoint').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "Store(Path(sys.argv[1])).build(ArtifactKey('s', 1, {}, {}), 'r', make)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, str(store.root)], cwd=REPOSITORY, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL
    step = ArtifactKey("s", 1, {}, {})
    assert store.status(step) == "resume"
    artifact = store.build(
        step, "r", lambda directory: {"left": [p.name for p in directory.iterdir()]}
    )
    assert artifact.facts == {"left": ["checkpoint"]}
