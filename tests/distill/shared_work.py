"""Short trainings whose every loss and last weights are kept, for one process or for several."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tiny_models import (
    LABELS,
    MAX_LENGTH,
    open_tiny,
    save_tiny,
    tiny_bert,
    tiny_dataset,
    tiny_regression,
    tiny_split,
)
from tiny_runs import QUICK, STUDENT
from tiny_teachers import source_of, tuned

from factory.distill import baseline, phase, task
from factory.distill.loss_log import LossPoint
from factory.runtime import distributed as processes
from factory.teacher.fine_tune import fine_tune
from factory.teacher.load import load_pretrained

# 16 rows a batch: the last batches of an epoch have 7 rows, and 1, which leaves one of two
# processes without any
UNLABELLED_ROWS = {"odd": 20, "single": 14}
LABELLED_ROWS = 35


def _keep(directory: Path, name: str, model: Any, points: Iterable[LossPoint] = ()) -> None:
    rank = processes.current().rank
    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(weights, directory / f"{name}.{rank}.safetensors")
    values = [[point.phase, point.step, point.term, point.value] for point in points]
    (directory / f"{name}.{rank}.json").write_text(json.dumps(values), encoding="utf-8")


def distillations(directory: str, teacher_folder: str) -> None:
    """Both phases and the baseline, with two sizes of the last batch; no dropout."""
    with processes.process_group("cpu"):
        for name, extra in UNLABELLED_ROWS.items():
            _distill(Path(directory), name, teacher_folder, extra)


def _distill(directory: Path, name: str, teacher_folder: str, extra: int) -> None:
    def keep(_: Path, student: Any, __: Any, points: Iterable[LossPoint]) -> None:
        _keep(directory, f"{name}.{stage}", student, points)

    task.save_student = baseline.save_student = keep
    settings = QUICK
    student = STUDENT.model_copy(update={"dropout": 0.0})
    train = tiny_split("train", LABELLED_ROWS, seed=5)
    unlabelled = tiny_split("more", extra, seed=6).inputs()
    here = directory / name
    here.mkdir(exist_ok=True)
    processes.wait_for_all()
    stage = "distill"
    teacher = open_tiny(Path(teacher_folder))
    task.distill(here, teacher, train, student, None, settings, None, unlabelled)
    stage = "baseline"
    baseline.train_baseline(here, teacher, train, student, None, settings, extra)


def fine_tunings(directory: str) -> None:
    """A teacher for classes and one for numbers; no dropout, last batches of 1 and of 3 rows."""
    with processes.process_group("cpu"):
        for name, data, weights in (
            ("classes", tiny_dataset(33, 6), "balanced"),
            ("numbers", tiny_regression(35, 6), "none"),
        ):
            if name == "classes":  # a rare class, so that its weight counts
                data = replace(
                    data, train=replace(data.train, targets=[0] * 20 + [1] * 10 + [2] * 3)
                )
            here = Path(directory) / name
            base = here / "base"
            if processes.current().first:
                save_tiny(tiny_bert(LABELS), base)
            processes.wait_for_all()
            settings = tuned(epochs=2.0, class_weights=weights)
            model, tokenizer = load_pretrained(source_of(base), settings, data)
            fine_tune(here, model, tokenizer, settings, data, MAX_LENGTH, "cpu")
            _keep(Path(directory), name, model)


def killed_distillation(directory: str, teacher_folder: str, seed: str, kill_at: str) -> None:
    """Dropout, a checkpoint every step; SIGKILL at an optimizer step."""
    phase.CHECKPOINT_SECONDS = -1.0
    original = torch.optim.AdamW.step
    steps = 0

    def step(*arguments: Any, **keywords: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == int(kill_at):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **keywords)

    torch.optim.AdamW.step = step  # type: ignore[method-assign]
    here = Path(directory)
    with processes.process_group("cpu"):
        here.mkdir(exist_ok=True)
        prediction = QUICK.prediction.model_copy(update={"epochs": 2.0})
        settings = QUICK.model_copy(update={"prediction": prediction, "seed": int(seed)})
        train = tiny_split("train", 50, seed=11)
        task.distill(here, open_tiny(Path(teacher_folder)), train, STUDENT, None, settings)
    print(json.dumps(steps))  # noqa: T201
