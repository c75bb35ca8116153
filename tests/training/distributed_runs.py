"""Short trainings in one or several processes; see test_distributed.py."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import torch
from helpers.tiny_models import LABELS, MAX_LENGTH, open_tiny, save_tiny, tiny_bert, tiny_dataset
from helpers.tiny_models import tiny_split as split_of
from helpers.tiny_teachers import source_of, tuned
from safetensors.torch import save_file

from factory.distill.tinybert import distill
from factory.recipe.training import (
    DistillSettings,
    IntermediateSettings,
    PredictionSettings,
    StudentSettings,
)
from factory.runtime import distributed
from factory.teacher.fine_tune import fine_tune
from factory.teacher.load import load_pretrained
from factory.training import trainer

STUDENT = StudentSettings(
    layers=2, hidden=16, heads=4, intermediate=32, dropout=0.1, start="random"
)


def settings_of(first: float, second: float, **more: Any) -> DistillSettings:
    """The epochs of both phases."""
    return DistillSettings(
        batch_size=16,
        intermediate=IntermediateSettings(epochs=first, learning_rate=5e-3),
        prediction=PredictionSettings(epochs=second, learning_rate=5e-3),
        **more,
    )


def one_student(directory: str) -> None:
    """Fine-tune a teacher and distil it; each rank keeps the teacher's weights that it ended with.

    The last batch of an epoch has one row, which two ranks cannot share.
    """
    output, data = Path(directory), tiny_dataset(209, 30)
    with distributed.process_group("cpu"):
        if distributed.current().is_main:
            save_tiny(tiny_bert(LABELS), output / "base")
        distributed.barrier()
        settings = tuned(epochs=7.0)
        model, tokenizer = load_pretrained(source_of(output / "base"), settings, data)
        fine_tune(output, model, tokenizer, settings, data.train, MAX_LENGTH, "cpu")
        weights = {name: value.contiguous() for name, value in model.state_dict().items()}
        save_file(weights, output / f"teacher.{distributed.current().rank}.safetensors")
        if distributed.current().is_main:
            save_tiny(model, output / "teacher")
        distributed.barrier()
        teacher = open_tiny(output / "teacher")
        how = settings_of(6, 4, holdout_fraction=0.1)
        distill(output, teacher, data.train, STUDENT, None, how)


def rows_of_ranks(directory: str) -> None:
    """Print the rows of every forward pass of one epoch over 35 rows in batches of 16."""
    output, data = Path(directory), tiny_dataset(35, 6)
    batches: list[list[int]] = []
    original = trainer.collate

    def collate(rows: Any, positions: Any, device: str) -> Any:
        batches.append(positions.tolist())
        return original(rows, positions, device)

    trainer.collate = collate
    with distributed.process_group("cpu"):
        if distributed.current().is_main:
            save_tiny(tiny_bert(LABELS), output / "base")
        distributed.barrier()
        settings = tuned(epochs=1.0, batch_size=16)
        model, tokenizer = load_pretrained(source_of(output / "base"), settings, data)
        fine_tune(output, model, tokenizer, settings, data.train, MAX_LENGTH, "cpu")
    print(json.dumps(batches))  # noqa: T201


def killed_distillation(directory: str, teacher_folder: str, kill_at: str) -> None:
    """Dropout, a checkpoint after every step; SIGKILL at an optimizer step."""
    trainer.CHECKPOINT_SECONDS = -1.0
    original = torch.optim.AdamW.step
    steps = 0

    def step(*arguments: Any, **keywords: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == int(kill_at):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **keywords)

    torch.optim.AdamW.step = step  # type: ignore[method-assign]
    output = Path(directory)
    output.mkdir(exist_ok=True)
    train = split_of("train", 50, seed=11)
    how = settings_of(1, 2)
    distill(output, open_tiny(Path(teacher_folder)), train, STUDENT, None, how)
    print(json.dumps(steps))  # noqa: T201
