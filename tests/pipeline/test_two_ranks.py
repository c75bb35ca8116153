"""A run on two ranks: one of them killed and then finished with torchrun, and failures."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.forked import Forks, factory_command
from helpers.pipeline_run import ROOT, Line, clean_environment, published, stage_directory

from factory.store import load_artifact
from serving.bundle import read_manifest
from serving.predictor import Predictor

LATER = ("distill", "baseline", "evaluate", "export", "quantize", "bundle", "report")


def assert_whole(store: Path, line: Line) -> None:
    """The store holds the stages of the line, finished, and a bundle that answers."""
    assert published(store).keys() == published(line.store).keys()
    for name in published(store):
        load_artifact(store / name)
    assert not [path for path in store.rglob("*") if ".partial" in path.name or ".tmp" in path.name]
    bundle = stage_directory(store, "bundle")
    assert len(Predictor.open(bundle).predict(["thanks for the lamp"])) == 1
    scores = read_manifest(bundle).scores
    assert scores["teacher"]["dev"]["accuracy"]["value"] > 0.8
    assert scores["student"]["dev"]["accuracy"]["value"] > 0.8


def test_a_killed_rank_ends_the_other_and_torchrun_finishes_the_run(
    line: Line, forks: Forks, tmp_path: Path
) -> None:
    store = line.copy_store(tmp_path, *LATER)
    group = forks.command("run", line.recipe, "--store", store, count=2)
    checkpoint = "distill-*.partial/intermediate.checkpoint"
    assert group.wait_until(lambda: any(store.glob(checkpoint)))
    group.send(signal.SIGKILL, rank=1)
    assert group.finish() == [1, -signal.SIGKILL]
    assert group.stderr(0).splitlines()[-1] == (
        "error: another process ended, see its message above; start all processes again, "
        "finished work is kept"
    )
    assert group.stdout(0) == ""

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    torchrun = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", port]
    command = ["-m", *torchrun, "-m", "factory", "run", line.recipe, "--store", store]
    result = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{stage_directory(store, 'bundle')}\n"
    stages = [
        [text.split()[0] for text in stderr.splitlines() if text.startswith("[")]
        for stderr in (result.stderr, line.stderr)
    ]
    assert stages[0] == stages[1]  # only rank 0 writes messages
    assert result.stderr.count("layer map (student<-teacher)") == 1
    assert_whole(store, line)


@pytest.mark.parametrize(
    ("override", "code", "message"),
    [
        ("gate.min_retention=1.5", 3, "error: gate 1 (student in torch) failed"),
        ("data.label=nothing", 1, "error: the data files cannot be used"),
    ],
)
def test_a_failure_ends_both_ranks_with_one_message(
    line: Line, forks: Forks, tmp_path: Path, override: str, code: int, message: str
) -> None:
    store = line.copy_store(tmp_path)
    before = published(store)
    group = forks.command("run", line.recipe, "--store", store, "--set", override, count=2)
    assert group.finish() == [code, code]
    assert message in group.stderr(0)
    assert "Traceback" not in group.stderr(0) + group.stderr(1)
    assert group.stdout(0) + group.stdout(1) == ""
    assert published(store) == before


def test_a_second_run_is_refused_on_both_ranks(line: Line, forks: Forks, tmp_path: Path) -> None:
    from factory.store import Store

    store = line.copy_store(tmp_path, "bundle")
    with Store(store).locked():
        group = forks.command("run", line.recipe, "--store", store, count=2)
        assert group.finish() == [1, 1]
    assert "another run is using this store" in group.stderr(0)
    assert group.stderr(1) == ""


def test_ranks_that_see_different_recipes_are_refused(
    line: Line, forks: Forks, tmp_path: Path
) -> None:
    group = forks.start(2, "test_two_ranks:run_with_own_name", line.recipe, tmp_path)
    assert group.finish() == [1, 1]
    assert "rank 1 of 2 sees another recipe, data or models" in group.stderr(0)
    assert not published(tmp_path)


def run_with_own_name(recipe: str, store: str) -> None:
    """`factory run` with another gate in the second process."""
    import os

    override = f"gate.min_value=0.{os.environ['RANK']}1"
    factory_command("run", recipe, "--store", store, "--set", override)
