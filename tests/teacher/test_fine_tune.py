"""Fine-tuning the teacher, and going on after an interruption."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_models import (
    LABELS,
    MAX_LENGTH,
    accuracy,
    open_tiny,
    save_tiny,
    tiny_bert,
    tiny_dataset,
    tiny_regression,
    tiny_tokenizer,
)
from helpers.tiny_teachers import SMALL, make, tuned
from safetensors.numpy import load_file

from factory.data.dataset import Dataset, select
from factory.errors import TeacherError
from factory.models.encoding import encode_inputs
from factory.teacher.fine_tune import check_teacher
from factory.training import trainer


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


def test_an_interrupted_run_ends_with_the_same_weights_to_the_last_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three epochs of four steps with dropout, interrupted at the seventh step."""
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", -1.0)
    dropout = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    base = save_tiny(tiny_bert(("yes", "no"), **dropout), tmp_path / "base")
    original, left = torch.optim.AdamW.step, [6]

    def step(*arguments: Any, **keywords: Any) -> Any:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return original(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "cut", base, tuned(epochs=3.0), SMALL)
    assert [path.name for path in (tmp_path / "cut").iterdir()] == ["teacher.checkpoint"]
    torch.manual_seed(31)
    for name in ("cut", "whole"):
        make(tmp_path / name, base, tuned(epochs=3.0), SMALL)
    resumed, whole = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("cut", "whole")
    )
    for name in whole:
        np.testing.assert_array_equal(resumed[name], whole[name], err_msg=name)
    assert [path.name for path in (tmp_path / "cut").iterdir()] == ["model"]


def test_embeddings_of_unused_tokens_keep_every_bit(tmp_path: Path) -> None:
    base = save_tiny(tiny_bert(("yes", "no")), tmp_path / "base")
    make(tmp_path / "made", base, tuned(), SMALL)
    name = "bert.embeddings.word_embeddings.weight"
    before = load_file(base / "model.safetensors")[name]
    after = load_file(tmp_path / "made" / "model" / "model.safetensors")[name]
    rows = encode_inputs(tiny_tokenizer(), SMALL.train.inputs(), MAX_LENGTH)
    used = np.unique(np.concatenate(rows.input_ids))
    unused = np.setdiff1d(np.arange(len(before)), used)
    assert len(unused) > 3
    np.testing.assert_array_equal(after[unused], before[unused])
    assert (after[used] != before[used]).any(axis=1).all()
