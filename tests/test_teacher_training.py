"""Fine-tuning the teacher, and going on after an interruption."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tiny_models import (
    LABELS,
    MAX_LENGTH,
    accuracy,
    open_tiny,
    save_tiny,
    tiny_bert,
    tiny_dataset,
    tiny_regression,
)
from tiny_teachers import SMALL, make, source_of, tuned

from factory.data.dataset import Dataset, select
from factory.errors import TeacherError
from factory.teacher.fine_tune import (
    _label_weights,
    _weighted_loss,
    fine_tune,
    last_complete_checkpoint,
)
from factory.teacher.load import check_teacher, load_pretrained

# transformers sorts checkpoints by time, which two of a tiny model's may share; it says so and
# goes by their numbers instead
pytestmark = pytest.mark.filterwarnings("ignore:mtime may not be reliable:UserWarning")


def test_fine_tuning_learns_and_is_scored_on_dev(tmp_path: Path, dataset: Dataset) -> None:
    base = save_tiny(tiny_bert(("yes", "no")), tmp_path / "base")  # its own head is left behind
    facts = make(tmp_path / "made", base, tuned(epochs=7.0), dataset)
    teacher = open_tiny(tmp_path / "made" / "model")
    assert accuracy(teacher, dataset.dev) > 0.9
    assert facts["dev"]["scores"]["accuracy"]["value"] == accuracy(teacher, dataset.dev)
    assert facts["dev"]["rows"] == 90
    assert (facts["fine_tuned_here"], facts["source"]) == (True, "sha256:test")
    assert (facts["layers"], facts["hidden"]) == (3, 24)
    assert facts["parameters"] == sum(p.numel() for p in teacher.model.parameters())
    assert teacher.model.config.id2label == dict(enumerate(LABELS))
    assert teacher.model.config.problem_type == "single_label_classification"
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["model"]
    check_teacher(facts, dataset, 0.05)
    json.dumps(facts)


def test_fine_tuning_fits_numbers(tmp_path: Path) -> None:
    data = tiny_regression()
    base = save_tiny(tiny_bert(("yes", "no")), tmp_path / "base")
    facts = make(tmp_path / "made", base, tuned(epochs=20.0), data)
    teacher = open_tiny(tmp_path / "made" / "model")
    assert teacher.model.config.problem_type == "regression"
    assert teacher.model.config.id2label == {0: "value"}
    wanted = np.array(data.dev.targets)
    assert np.corrcoef(teacher.logits(data.dev.inputs())[:, 0], wanted)[0, 1] > 0.8
    assert set(facts["dev"]["scores"]) == {"pearson", "spearman"}
    check_teacher(facts, data, 0.5)


def test_fine_tuning_is_deterministic(tmp_path: Path) -> None:
    base = save_tiny(tiny_bert(("yes", "no"), hidden_dropout_prob=0.1), tmp_path / "base")
    for name, noise in (("first", 1), ("second", 2)):
        torch.manual_seed(noise)  # whatever ran before in the process
        make(tmp_path / name, base, tuned(), SMALL)
    make(tmp_path / "third", base, tuned(seed=5), SMALL)
    first, second, third = (
        load_file(tmp_path / name / "model" / "model.safetensors")
        for name in ("first", "second", "third")
    )
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not all(np.array_equal(first[name], third[name]) for name in first)


def test_fewer_rows_than_a_batch_are_trained_on(tmp_path: Path) -> None:
    data = tiny_dataset(6, 6)
    base = save_tiny(tiny_bert(), tmp_path / "base")
    make(tmp_path / "made", base, tuned(epochs=3.0, batch_size=32), data)
    before = load_file(base / "model.safetensors")
    after = load_file(tmp_path / "made" / "model" / "model.safetensors")
    assert not np.array_equal(before["classifier.weight"], after["classifier.weight"])


# class weights


def skewed() -> Dataset:
    """Two classes, the second with one row in eight."""
    whole = tiny_dataset(160, 160)
    parts = []
    for split in (whole.train, whole.dev):
        rows = [n for n, t in enumerate(split.targets) if t == 0 or (t == 2 and n % 24 == 2)]
        chosen = select(split, split.name, rows)
        parts.append(replace(chosen, targets=[int(t == 2) for t in chosen.targets]))
    return Dataset("classification", ("angry", "glad"), *parts, None)


def test_the_weighted_loss_is_the_mean_of_weight_times_cross_entropy() -> None:
    data = skewed()
    logits = torch.tensor([[0.3, -1.0], [2.0, 0.5], [-0.7, 0.1]], requires_grad=True)
    labels = torch.tensor([0, 1, 1])
    counts = np.bincount(data.train.targets)
    expected = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        weight = len(data.train) / (2 * counts[label])
        expected -= weight * (row[label] - np.log(np.exp(row).sum())) / 3
    loss = _weighted_loss(_label_weights(data))(SimpleNamespace(logits=logits), labels)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert logits.grad is not None


def test_class_weights_reach_the_training(tmp_path: Path) -> None:
    """Where the plain teacher still answers the frequent class alone, this one finds the rare."""
    data = skewed()
    base = save_tiny(tiny_bert(("yes", "no")), tmp_path / "base")
    recalls, fit = {}, []
    for weights in ("none", "balanced"):
        settings = tuned(epochs=8.0, batch_size=8, class_weights=weights)
        facts = make(tmp_path / weights, base, settings, data)
        recalls[weights] = facts["dev"]["per_class"]["glad"]["recall"]
        with contextlib.suppress(TeacherError):
            check_teacher(facts, data, 0.05)
            fit.append(weights)
    assert recalls["none"] < 0.2
    assert recalls["balanced"] > 0.5
    assert fit == ["balanced"]


# resuming

KILLED_RUN = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from transformers import Trainer
from test_teacher_training import resumable
original, steps = Trainer.training_step, []
def training_step(*arguments, **keywords):
    steps.append(1)
    if len(steps) == 7:  # four steps an epoch: two have gone since the checkpoint
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **keywords)
Trainer.training_step = training_step
resumable(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def resumable(base: Path, directory: Path) -> None:
    """Three epochs of four steps with dropout."""
    directory.mkdir(exist_ok=True)
    make(directory, base, tuned(epochs=3.0), SMALL)


def test_a_killed_run_is_continued_from_its_last_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropout = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    base = save_tiny(tiny_bert(("yes", "no"), **dropout), tmp_path / "base")
    here = Path(__file__).parent
    command = [sys.executable, "-c", KILLED_RUN, str(base), str(tmp_path / "cut")]
    killed = subprocess.run(
        [*command, str(here), str(here.parent)], capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    saved = sorted(path.name for path in (tmp_path / "cut" / "checkpoints").iterdir())
    assert saved == ["checkpoint-4"]

    from transformers import Trainer

    steps: list[int] = []
    original = Trainer.training_step

    def count(*arguments: Any, **keywords: Any) -> Any:
        steps.append(1)
        return original(*arguments, **keywords)

    monkeypatch.setattr(Trainer, "training_step", count)
    torch.manual_seed(31)
    resumable(base, tmp_path / "cut")
    assert len(steps) == 8
    resumable(base, tmp_path / "whole")
    assert len(steps) == 8 + 12
    resumed, whole = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("cut", "whole")
    )
    for name in whole:
        np.testing.assert_allclose(resumed[name], whole[name], atol=1e-6, err_msg=name)
    assert [path.name for path in (tmp_path / "cut").iterdir()] == ["model"]


def write_checkpoint(directory: Path, step: int, state: str | None) -> Path:
    checkpoint = directory / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    if state is not None:
        (checkpoint / "trainer_state.json").write_text(state)
    return checkpoint


def test_the_newest_complete_checkpoint_is_taken(tmp_path: Path) -> None:
    assert last_complete_checkpoint(tmp_path / "nowhere") is None
    assert last_complete_checkpoint(tmp_path) is None
    write_checkpoint(tmp_path, 9, '{"global_step": 9}')
    newest = write_checkpoint(tmp_path, 100, '{"global_step": 100}')  # 9 > 100 as text
    assert last_complete_checkpoint(tmp_path) == newest


@pytest.mark.parametrize("state", [None, "", '{"global_step": 3', "{}"])
def test_a_half_written_checkpoint_is_skipped_and_removed(
    tmp_path: Path, state: str | None
) -> None:
    complete = write_checkpoint(tmp_path, 10, '{"global_step": 10}')
    half = write_checkpoint(tmp_path, 20, state)
    assert last_complete_checkpoint(tmp_path) == complete
    assert complete.is_dir()
    assert not half.exists()


def test_training_starts_afresh_where_only_half_a_checkpoint_is(tmp_path: Path) -> None:
    base = save_tiny(tiny_bert(), tmp_path / "base")
    write_checkpoint(tmp_path / "made" / "checkpoints", 4, None)
    model, tokenizer = load_pretrained(source_of(base), tuned(), SMALL)
    fine_tune(tmp_path / "made", model, tokenizer, tuned(), SMALL, MAX_LENGTH, "cpu")
    saved = [path.name for path in (tmp_path / "made" / "checkpoints").iterdir()]
    assert saved == ["checkpoint-8"]
