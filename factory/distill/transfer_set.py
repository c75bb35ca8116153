"""The transfer set, the teacher's logits on it, and the train/held-out split of its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from factory.data.dataset import Split
from factory.distill.losses import TeacherLoss
from factory.models.classifier import (
    INFERENCE_BATCH_SIZE,
    TorchClassifier,
    forward_logits,
    logits_with_bar,
)
from factory.models.encoding import EncodedRows, collate, encode_inputs, sorted_batches
from factory.recipe.training import DistillSettings, IntermediateSettings, PredictionSettings
from factory.runtime import distributed
from factory.store import atomic_write
from factory.training.trainer import Phase

Inputs = Sequence[str] | Sequence[tuple[str, str]]
NO_SOURCE = -1
LOGITS_FILE = "teacher_logits.npy"


@dataclass(frozen=True, slots=True)
class AugmentedRows:
    """Augmented examples of labelled rows.

    Shapes:
        source_rows: (rows,) position of each one's labelled row
    """

    inputs: Inputs
    source_rows: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class TransferSet:
    """Labelled rows first, then augmented examples of them, then unlabelled rows.

    Shapes:
        source_rows: (rows,) the labelled row that each one is or was made from, else `NO_SOURCE`
    """

    inputs: list[Any]
    rows: EncodedRows
    source_rows: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DistillationData:
    """The transfer set, the teacher's logits on it, and the train/held-out split of its rows.

    Shapes:
        teacher_logits: (rows, labels)
        train, held_out: positions of rows; held-out rows only choose among epochs and seeds
    """

    teacher: TorchClassifier
    transfer: TransferSet
    teacher_logits: NDArray[np.float32]
    train: NDArray[np.int64]
    held_out: NDArray[np.int64]

    def intermediate_rows(self, settings: DistillSettings) -> NDArray[np.int64]:
        """Positions of the train rows of the intermediate phase (`unlabelled_phases`)."""
        if settings.unlabelled_phases == "both":
            return self.train
        labelled: NDArray[np.bool_] = self.transfer.source_rows[self.train] != NO_SOURCE
        return self.train[labelled]

    def held_out_facts(self, losses: Mapping[str, Any]) -> dict[str, Any] | None:
        """The number of held-out rows and the losses on them; None without such rows."""
        return {"rows": len(self.held_out), **losses} if len(self.held_out) else None


def load_data(
    output: Path,
    teacher: TorchClassifier,
    tokenizer: Any,
    train: Split,
    settings: DistillSettings,
    augmented: AugmentedRows | None,
    unlabelled: Inputs | None,
) -> DistillationData:
    """Tokenize the transfer set and compute the teacher's logits on it; freezes the teacher.

    Args:
        output: directory that caches the logits.
        tokenizer: the student's.
    """
    transfer = transfer_set(train.inputs(), augmented, unlabelled, tokenizer, teacher.max_length)
    learned, held_out = hold_out(
        transfer.source_rows, len(train), settings.holdout_fraction, settings.seed
    )
    teacher.model.eval()  # without dropout: the targets must not be noise
    teacher.model.requires_grad_(False)
    logits = cached_logits(output, teacher, transfer.inputs)
    return DistillationData(teacher, transfer, logits, learned, held_out)


def transfer_set(
    labelled: Inputs,
    augmented: AugmentedRows | None,
    unlabelled: Inputs | None,
    tokenizer: Any,
    max_length: int,
) -> TransferSet:
    """Tokenize labelled, augmented and unlabelled rows."""
    made = augmented.inputs if augmented is not None else ()
    inputs = [*labelled, *made, *(unlabelled or ())]
    sources = np.full(len(inputs), NO_SOURCE, dtype=np.int64)
    sources[: len(labelled)] = np.arange(len(labelled))
    if augmented is not None:
        sources[len(labelled) : len(labelled) + len(made)] = augmented.source_rows
    return TransferSet(inputs, encode_inputs(tokenizer, inputs, max_length), sources)


def hold_out(
    source_rows: NDArray[np.int64], labelled: int, fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions to train on and positions to hold out, drawn among the labelled rows.

    The draw depends on `seed` alone, so all students of a recipe are compared on the same rows.

    Args:
        source_rows: of each row, the labelled row it is or was made from, (rows,); rows made from
            a held-out one are in neither part.
        labelled: number of labelled rows, which come first; only these are held out.
    """
    order = np.random.default_rng([seed, labelled]).permutation(labelled)
    held_out = np.sort(order[: round(fraction * labelled)])
    return np.flatnonzero(~np.isin(source_rows, held_out)), held_out


def cached_logits(
    output: Path, teacher: TorchClassifier, inputs: Sequence[Any]
) -> NDArray[np.float32]:
    """Teacher logits of the transfer set, computed once per directory: (rows, labels).

    Each rank computes a contiguous part of the rows.
    """
    file = output / LOGITS_FILE
    if distributed.on_main_process(file.is_file):
        logits: NDArray[np.float32] = np.load(file, allow_pickle=False)
        return logits
    own = distributed.current()
    bounds = [len(inputs) * rank // own.world_size for rank in range(own.world_size + 1)]
    mine = inputs[bounds[own.rank] : bounds[own.rank + 1]]
    logits = np.concatenate(distributed.gather(logits_with_bar(teacher, mine, "teacher logits")))
    if own.is_main:
        with atomic_write(file) as temporary, temporary.open("wb") as handle:
            np.save(handle, logits)
    return logits


def held_out_loss(student: Any, data: DistillationData, loss: TeacherLoss) -> float:
    """Mean loss of a student in eval mode against the teacher's logits on the held-out rows.

    The loss resolves differences that a metric on a few hundred rows cannot.
    """
    device, rows = data.teacher.device, data.transfer.rows
    wanted = torch.from_numpy(data.teacher_logits).to(device)
    total = torch.zeros((), dtype=torch.float64, device=device)
    with torch.no_grad():
        for chosen in sorted_batches(rows.lengths[data.held_out], INFERENCE_BATCH_SIZE):
            batch = collate(rows, data.held_out[chosen], device)
            total += loss(forward_logits(student, batch), wanted[batch.rows]).double().sum()
    return float(total) / len(data.held_out)


def intermediate_phase(settings: DistillSettings) -> Phase:
    """The first phase of task distillation."""
    return _phase("intermediate", settings.intermediate, settings)


def prediction_phase(settings: DistillSettings) -> Phase:
    """The second phase of task distillation."""
    return _phase("prediction", settings.prediction, settings)


def _phase(
    name: str, own: IntermediateSettings | PredictionSettings, settings: DistillSettings
) -> Phase:
    return Phase(
        name=name,
        epochs=own.epochs,
        batch_size=own.batch_size or settings.batch_size,
        learning_rate=own.learning_rate,
        warmup=own.warmup,
        weight_decay=settings.weight_decay,
        seed=settings.seed,
    )
