"""Choosing among students by rows that none of them learned on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from factory.distill.prediction import TeacherLoss
from factory.models.classifier import INFERENCE_BATCH_SIZE, forward_logits
from factory.models.encoding import EncodedRows, collate, sorted_batches


def hold_out(
    source_rows: NDArray[np.int64], labelled: int, fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions to learn on and positions to choose on, drawn among the labelled rows.

    The draw depends on `seed` alone, so all students of a recipe are compared on the same rows.

    Args:
        source_rows: of each row, the labelled row it is or was made from, (rows,); rows made from
            a held-out one are neither learned on nor chosen on.
        labelled: rows that come first and carry annotations; only these are held out.
    """
    order = np.random.default_rng([seed, labelled]).permutation(labelled)
    held_out = np.sort(order[: round(fraction * labelled)])
    return np.flatnonzero(~np.isin(source_rows, held_out)), held_out


def held_out_loss(
    student: Any,
    rows: EncodedRows,
    held_out: NDArray[np.int64],
    teacher_logits: NDArray[np.float32],
    loss: TeacherLoss,
    device: str,
) -> float:
    """Mean loss of a student in eval mode against the teacher's logits on the held-out rows.

    Against the teacher and not the annotations: a loss tells students apart that a metric on a
    few hundred rows cannot.
    """
    lengths = rows.lengths[held_out]
    wanted = torch.from_numpy(teacher_logits).to(device)
    total = torch.zeros((), dtype=torch.float64, device=device)
    with torch.no_grad():
        for chosen in sorted_batches(lengths, INFERENCE_BATCH_SIZE):
            batch = collate(rows, held_out[chosen], device)
            value = loss(forward_logits(student, batch), wanted[batch.rows], None)
            total += value.double() * len(chosen)
    return float(total) / len(held_out)
