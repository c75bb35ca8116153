"""Training in two processes, and in processes that are killed."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from process_groups import ForkingServer, forking_server
from safetensors.numpy import load_file

STEPS = 4 + 8  # of `killed_distillation`: 50 rows in batches of 16, one epoch and two


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkingServer]:
    """Starts processes that share one start-up."""
    with forking_server(tmp_path_factory.mktemp("groups")) as server:
        yield server


def assert_close(found: Path, expected: Path, largest: float) -> None:
    a, b = load_file(found), load_file(expected)
    assert a.keys() == b.keys()
    for name in b:
        # softmax takes a key's bias out again: its gradient is rounding, which Adam makes steps of
        atol = 1e-3 if name.endswith("key.bias") else largest
        np.testing.assert_allclose(a[name], b[name], rtol=0, atol=atol, err_msg=name)


def test_two_processes_distil_as_one_does(
    server: ForkingServer, trained_folder: Path, tmp_path: Path
) -> None:
    for count in (1, 2):
        (tmp_path / str(count)).mkdir()
        work = "shared_work:distillations"
        server.run(count, work, tmp_path / str(count), trained_folder)
    for name in ("odd.distill", "odd.baseline", "single.distill", "single.baseline"):
        alone = json.loads((tmp_path / "1" / f"{name}.0.json").read_text())
        shared = json.loads((tmp_path / "2" / f"{name}.0.json").read_text())
        assert [point[:3] for point in shared] == [point[:3] for point in alone]
        values, expected = ([point[3] for point in points] for points in (shared, alone))
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
        own, other = (tmp_path / "2" / f"{name}.{rank}.safetensors" for rank in (0, 1))
        assert own.read_bytes() == other.read_bytes()
        assert_close(own, tmp_path / "1" / f"{name}.0.safetensors", 2e-5)
    points = json.loads((tmp_path / "2" / "odd.distill.1.json").read_text())
    assert {point[0] for point in points} == {"intermediate", "prediction"}
    learned = [
        value for phase, _, term, value in points if (phase, term) == (points[0][0], "total")
    ]
    assert learned[-1] < 0.9 * learned[0]


def test_two_processes_fine_tune_as_one_does(server: ForkingServer, tmp_path: Path) -> None:
    for count in (1, 2):
        (tmp_path / str(count)).mkdir()
        server.run(count, "shared_work:fine_tunings", tmp_path / str(count))
    for name in ("classes", "numbers"):
        own, other = (tmp_path / "2" / f"{name}.{rank}.safetensors" for rank in (0, 1))
        assert own.read_bytes() == other.read_bytes()
        assert_close(own, tmp_path / "1" / f"{name}.0.safetensors", 1e-5)
        base = load_file(tmp_path / "1" / name / "base" / "model.safetensors")
        after = load_file(own)
        moved = "bert.encoder.layer.0.attention.self.query.weight"
        assert np.abs(after[moved] - base[moved]).max() > 5e-3


@pytest.mark.parametrize(("count", "seed"), [(1, 1), (1, 2), (1, 3), (2, 4)])
def test_killed_at_any_step_the_weights_end_the_same_to_the_last_bit(
    server: ForkingServer, trained_folder: Path, tmp_path: Path, count: int, seed: int
) -> None:
    work, whole, cut = "shared_work:killed_distillation", tmp_path / "whole", tmp_path / "cut"
    assert server.run(count, work, whole, trained_folder, seed, 0) == [f"{STEPS}\n"] * count
    kill_at = random.Random(seed).randint(1, STEPS)
    group = server.start(count, work, cut, trained_folder, seed, kill_at)
    assert group.finish() == [-signal.SIGKILL] * count
    resumed = server.run(count, work, cut, trained_folder, seed, 0)
    assert {json.loads(steps) for steps in resumed} == {STEPS - kill_at + 1}
    for file in ("model/model.safetensors", "losses.csv"):
        assert (cut / file).read_bytes() == (whole / file).read_bytes()
