"""Training in two processes, and in one that is killed."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from helpers.forked import Forks
from helpers.tiny_models import accuracy, open_tiny, tiny_dataset

STEPS = 4 + 8  # of `killed_distillation`: 50 rows in batches of 16, one epoch and two


def test_two_processes_train_one_student(forks: Forks, tmp_path: Path) -> None:
    forks.run(2, "distributed_runs:one_student", tmp_path)
    ranks = [(tmp_path / f"teacher.{rank}.safetensors").read_bytes() for rank in (0, 1)]
    assert ranks[0] == ranks[1]
    dev = tiny_dataset(209, 30).dev
    assert accuracy(open_tiny(tmp_path / "teacher"), dev) > 0.8  # chance is 1/3
    assert accuracy(open_tiny(tmp_path / "model"), dev) > 0.8
    assert np.load(tmp_path / "teacher_logits.npy").shape == (209, 3)
    assert not list(tmp_path.glob("*.tmp*"))


def test_two_processes_share_the_rows_of_each_batch(forks: Forks, tmp_path: Path) -> None:
    """One batch has 3 rows; one of them is in both shares."""
    work = "distributed_runs:rows_of_ranks"
    first, second = (json.loads(found) for found in forks.run(2, work, tmp_path))
    batches = [[*one, *other] for one, other in zip(first, second, strict=True)]
    assert sorted(map(len, first)) == sorted(map(len, second)) == [2, 8, 8]
    assert sorted(len(set(batch)) for batch in batches) == [3, 16, 16]
    assert set().union(*batches) == set(range(35))


@pytest.mark.parametrize("kill_at", [3, 9])  # in the first phase, in the second
def test_killed_at_any_step_the_weights_end_the_same_to_the_last_bit(
    forks: Forks, trained_folder: Path, tmp_path: Path, kill_at: int
) -> None:
    work, whole, cut = "distributed_runs:killed_distillation", tmp_path / "whole", tmp_path / "cut"
    assert forks.run(1, work, whole, trained_folder, 0) == [f"{STEPS}\n"]
    group = forks.start(1, work, cut, trained_folder, kill_at)
    assert group.finish() == [-signal.SIGKILL]
    (resumed,) = forks.run(1, work, cut, trained_folder, 0)
    assert json.loads(resumed) == STEPS - kill_at + 1
    for file in ("model/model.safetensors", "losses.csv"):
        assert (cut / file).read_bytes() == (whole / file).read_bytes()
