"""The prune stage on tiny models: what it writes, how it recovers, and that it can be resumed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_models import open_tiny, save_tiny, tiny_bert, tiny_dataset, train_plainly
from safetensors.numpy import load_file
from scipy.special import softmax
from tiny_runs import QUICK, PowerCut, hooks_of, losses_of, same, weights
from torch import Tensor

from factory.distill import prune as prune_module
from factory.distill import tinybert, transfer_set
from factory.distill.prune import prune
from factory.models.classifier import TorchClassifier
from factory.recipe.training import DistillSettings, PruneSettings
from factory.training import trainer
from factory.training.trainer import Phase

TRAIN = tiny_dataset(100, 30).train
SETTINGS = PruneSettings(neurons=5, calibration_rows=60, epochs=2.0, learning_rate=3e-3)


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory, trained_folder: Path) -> Path:
    """What the distill stage leaves: a student near the teacher, though not the same, and logits.

    Three layers of 48 neurons, with dropout.
    """
    directory = tmp_path_factory.mktemp("distilled")
    model = tiny_bert(seed=2, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    train_plainly(model, TRAIN)
    save_tiny(model, directory / "model")
    logits = open_tiny(trained_folder).logits(TRAIN.inputs())
    np.save(directory / "teacher_logits.npy", logits)
    return directory


def pruned(
    directory: Path,
    distilled: Path,
    teacher: Path,
    settings: PruneSettings = SETTINGS,
    taught: DistillSettings = QUICK,
    **more: Any,
) -> dict[str, Any]:
    directory.mkdir(exist_ok=True)
    student = open_tiny(distilled / "model")
    return prune(directory, distilled, student, open_tiny(teacher), TRAIN, settings, taught, **more)


def far(student: Path, distilled: Path) -> float:
    """Mean squared distance of a student's probabilities from the teacher's on what it learned."""
    wanted = np.load(distilled / "teacher_logits.npy")
    found = open_tiny(student / "model").logits(TRAIN.inputs())
    return float(np.square(softmax(found, axis=1) - softmax(wanted, axis=1)).mean())


def test_fewer_neurons_and_what_is_told_of_them(
    tmp_path: Path, distilled: Path, trained_folder: Path
) -> None:
    facts = pruned(tmp_path / "one", distilled, trained_folder)
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["losses.csv", "model"]
    found = weights(tmp_path / "one")
    size = sum(weight.size for weight in found.values())
    before = sum(weight.size for weight in weights(distilled).values())
    assert found["bert.encoder.layer.1.output.dense.weight"].shape == (24, 5)
    assert facts["parameters"] == size
    assert facts["before"] == {"neurons": 48, "parameters": before}
    assert before - size == 3 * 43 * 49
    assert facts["neurons"] == 5
    assert facts["rows"] == 100
    assert facts["steps"] == 14  # 7 batches of 16, twice
    assert facts["held_out"] is None
    # of 48 neurons the best 5 hold more than their number's share, and not all
    assert all(5 / 48 < share < 1 for share in facts["importance_kept"])
    assert len(facts["importance_kept"]) == 3
    log = losses_of(tmp_path / "one")["recovery.total"]
    assert facts["losses"]["recovery.total"]["first"] == pytest.approx(log[0], rel=1e-4)


def test_it_recovers(tmp_path: Path, distilled: Path, trained_folder: Path) -> None:
    none, longer = (SETTINGS.model_copy(update={"epochs": epochs}) for epochs in (0.0, 5.0))
    facts = pruned(tmp_path / "cut", distilled, trained_folder, none)
    assert facts["steps"] == 0
    assert facts["losses"] == {}
    pruned(tmp_path / "recovered", distilled, trained_folder, longer)
    cut, recovered = far(tmp_path / "cut", distilled), far(tmp_path / "recovered", distilled)
    assert recovered < 0.8 * cut


def test_the_most_important_neurons_are_kept(
    tmp_path: Path, distilled: Path, trained_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = SETTINGS.model_copy(update={"epochs": 0.0})
    pruned(tmp_path / "most", distilled, trained_folder, none)
    original = prune_module.neuron_importance
    monkeypatch.setattr(prune_module, "neuron_importance", lambda *given: -original(*given))
    pruned(tmp_path / "least", distilled, trained_folder, none)
    assert far(tmp_path / "most", distilled) < far(tmp_path / "least", distilled)


def test_the_teacher_is_asked_again_only_when_its_logits_are_gone(
    tmp_path: Path, distilled: Path, trained_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = Path(shutil.copytree(distilled, tmp_path / "bare"))
    (bare / "teacher_logits.npy").unlink()
    facts = pruned(tmp_path / "asked", bare, trained_folder, unlabelled=["my lamp is late"])
    assert facts["rows"] == 101
    assert not (bare / "teacher_logits.npy").exists()  # what is published stays as it is
    kept = np.load(tmp_path / "asked" / "teacher_logits.npy")
    np.testing.assert_allclose(kept[:100], np.load(distilled / "teacher_logits.npy"), atol=1e-5)

    def refuse(*_: Any) -> None:
        raise PowerCut

    monkeypatch.setattr(transfer_set, "logits_with_bar", refuse)
    pruned(tmp_path / "not asked", distilled, trained_folder)


def test_an_interrupted_recovery_ends_with_the_same_weights(
    tmp_path: Path, distilled: Path, trained_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout, so that the random state counts; cut at the ninth of 14 steps."""
    pruned(tmp_path / "whole", distilled, trained_folder)
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", -1.0)
    original, left = torch.optim.AdamW.step, [8]

    def step(*arguments: Any, **keywords: Any) -> Any:
        if not left[0]:
            raise PowerCut
        left[0] -= 1
        return original(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        with pytest.raises(PowerCut):
            pruned(tmp_path / "cut", distilled, trained_folder)
    assert (tmp_path / "cut" / "recovery.checkpoint").is_file()
    torch.manual_seed(77)
    pruned(tmp_path / "cut", distilled, trained_folder)
    assert same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))
    assert losses_of(tmp_path / "cut") == losses_of(tmp_path / "whole")


def test_held_out_rows_choose_the_epoch_and_are_not_learned_on(
    tmp_path: Path, distilled: Path, trained_folder: Path
) -> None:
    taught = QUICK.model_copy(update={"holdout_fraction": 0.2})
    seen: list[np.ndarray] = []
    original = prune_module.neuron_importance

    def watch(student: Any, rows: Any, *rest: Any) -> Any:
        seen.extend(rows.input_ids)
        return original(student, rows, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prune_module, "neuron_importance", watch)
        more = SETTINGS.model_copy(update={"calibration_rows": 1000})
        facts = pruned(tmp_path, distilled, trained_folder, more, taught)
    assert facts["rows"] == len(seen) == 80
    assert facts["held_out"]["rows"] == 20
    assert facts["held_out"]["loss"] > 0


def test_how_it_recovers_is_how_it_was_taught(
    tmp_path: Path, distilled: Path, trained_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases: list[Phase] = []
    original = tinybert.train

    def watch(phase: Phase, *rest: Any) -> Any:
        phases.append(phase)
        return original(phase, *rest)

    monkeypatch.setattr(tinybert, "train", watch)
    taught = QUICK.model_copy(
        update={"prediction": QUICK.prediction.model_copy(update={"warmup": 0.3, "batch_size": 8})}
    )
    pruned(tmp_path, distilled, trained_folder, taught=taught)
    (phase,) = phases
    assert (phase.name, phase.epochs, phase.learning_rate) == ("recovery", 2.0, 3e-3)
    assert (phase.batch_size, phase.warmup, phase.seed) == (8, 0.3, QUICK.seed)


def test_nothing_stays_behind_when_it_fails(
    tmp_path: Path, distilled: Path, teacher: TorchClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> Tensor:
        raise PowerCut

    student = open_tiny(distilled / "model")
    before = load_file(distilled / "model" / "model.safetensors")
    monkeypatch.setattr(tinybert, "forward_logits", failing)
    with pytest.raises(PowerCut):
        prune(tmp_path, distilled, student, teacher, TRAIN, SETTINGS, QUICK)
    assert not hooks_of(student.model)
    assert same(load_file(distilled / "model" / "model.safetensors"), before)
