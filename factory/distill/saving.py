"""A trained student to its directory: a plain BERT classifier and its loss log, nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from factory.distill.loss_log import LossPoint, write_losses
from factory.errors import TrainingError
from factory.models.encoding import save_tokenizer
from factory.runtime import distributed as processes


def save_student(
    directory: Path, student: Any, tokenizer: Any, points: Iterable[LossPoint]
) -> None:
    """Write `model/` and `losses.csv`, and remove what only a resumed run would need.

    Raises:
        TrainingError: a weight is not a finite number.
    """
    student.eval()
    broken = [name for name, weight in student.named_parameters() if not weight.isfinite().all()]
    if broken:
        raise TrainingError(
            f"the student's {broken[0]} holds numbers that are not finite after the last step; "
            "lower the learning rates in distill"
        )
    if processes.current().first:
        student.save_pretrained(directory / "model")
        save_tokenizer(tokenizer, directory / "model")
        write_losses(directory / "losses.csv", points)
        for leftover in (*directory.glob("*.checkpoint"), *directory.glob("*.tmp*")):
            leftover.unlink()
        for other in directory.glob("seed-*"):
            shutil.rmtree(other)
    processes.wait_for_all()
