"""The training loop of every model: seeded batches, AdamW, linear decay, exact resume.

Hugging Face accelerate handles the device, bf16 autocast on CUDA and DistributedDataParallel. The
trained module returns the loss of a batch from its forward.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from numpy.typing import NDArray
from torch import Tensor, nn

from factory.errors import TrainingError
from factory.models.encoding import Batch, Rows, collate, epoch_order
from factory.recipe.training import GeneralSettings, TeacherSettings
from factory.runtime import distributed, tracking
from factory.runtime.progress import bar, say
from factory.training.checkpoint import TrainingState
from factory.training.loss_log import LossPoint, bar_text, require_finite

CHECKPOINT_SECONDS = 60.0
LOG_POINTS = 100
MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True, slots=True)
class Phase:
    """The settings of one training phase; `warmup` is a share of the steps."""

    name: str
    epochs: float
    batch_size: int
    learning_rate: float
    warmup: float
    weight_decay: float
    seed: int


def phase_of(name: str, settings: TeacherSettings | GeneralSettings) -> Phase:
    """The phase that a section of the recipe describes."""
    return Phase(
        name=name,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup=settings.warmup,
        weight_decay=settings.weight_decay,
        seed=settings.seed,
    )


class BatchLoss(nn.Module):
    """Base class of the modules to train: the loss of a batch as forward, and its parameters.

    A frozen model that the loss only reads must not be a submodule: it would be wrapped and saved.
    """

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Scalar terms by name; `total` is minimized, all are logged."""
        raise NotImplementedError


def total_steps(phase: Phase, rows: int) -> int:
    """Optimizer steps of a phase over `rows` rows; a part of a batch counts as a step."""
    # rounded first: 1.1 epochs of 10 batches are 11.000000000000002 in floating point, not 12 steps
    return math.ceil(round(phase.epochs * steps_per_epoch(phase, rows), 6))


def steps_per_epoch(phase: Phase, rows: int) -> int:
    """Batches of one pass over the rows, the last of which may be smaller."""
    return math.ceil(rows / phase.batch_size)


def train(
    phase: Phase,
    model: BatchLoss,
    rows: Rows,
    checkpoint_file: Path,
    device: str,
    score: Callable[[], float] | None = None,
    *,
    find_unused_parameters: bool = False,
) -> list[LossPoint]:
    """Train a module in place, resuming from `checkpoint_file` if it exists.

    On one process, a resumed phase ends with the same bits as an uninterrupted one. The finished
    phase leaves its last state in `checkpoint_file`. With several processes, each takes its slice
    of every batch and DistributedDataParallel averages the gradients.

    Args:
        score: called on rank 0 before the first step and after each epoch, with the module in eval
            mode; the weights with the highest score are kept.
        find_unused_parameters: as in DistributedDataParallel; set it when the loss does not reach
            every parameter.

    Raises:
        TrainingError: a loss is not finite, or memory runs out.
    """
    accelerator = _accelerator(device, find_unused_parameters)
    steps, per_epoch = total_steps(phase, len(rows)), steps_per_epoch(phase, len(rows))
    optimizer = _optimizer(model, phase)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(phase, step, steps))
    state = TrainingState(model, optimizer, schedule, checkpoint_file)
    torch.manual_seed(phase.seed + accelerator.process_index)
    state.restore()
    if state.step >= steps:
        return state.points
    wrapped = accelerator.prepare(model)
    gradients = _Gradients(accelerator, wrapped, rows, device)

    def keep_best() -> None:
        if score is not None:
            wrapped.eval()
            state.keep_if_best(distributed.on_main_process(score))
            wrapped.train()

    def log(pending: list[dict[str, Tensor]]) -> dict[str, float]:
        means = _means(accelerator, pending)
        require_finite(phase.name, state.step, means, phase.learning_rate)
        state.add_points(phase.name, means)
        tracking.log(phase.name, phase.seed, state.step, means)
        return means

    pending: list[dict[str, Tensor]] = []
    saved_at = time.monotonic()
    wrapped.train()
    if state.step == 0:
        keep_best()
    with bar(phase.name, steps, "step", initial=state.step) as progress:
        for positions in _remaining_batches(phase, rows, state.step, steps):
            terms = gradients.compute(positions)
            if state.step == 0:
                log([terms])
            accelerator.clip_grad_norm_(wrapped.parameters(), MAX_GRADIENT_NORM)
            optimizer.step()
            schedule.step()
            state.step += 1
            progress.advance()
            pending.append(terms)
            if state.step == steps or state.step % per_epoch == 0:
                keep_best()
            if state.step == steps or state.step % max(1, steps // LOG_POINTS) == 0:
                progress.note(bar_text(log(pending), state.start_values))
                pending = []
                if _checkpoint_due(saved_at):
                    state.save()
                    saved_at = time.monotonic()
    state.finish()
    state.save()
    distributed.barrier()
    return state.points


def _accelerator(device: str, find_unused_parameters: bool) -> Accelerator:
    on_cuda = device.startswith("cuda")
    if on_cuda:
        torch.set_float32_matmul_precision("high")  # TF32 for what autocast leaves in float32
    ddp = DistributedDataParallelKwargs(find_unused_parameters=find_unused_parameters)
    return Accelerator(
        cpu=device == "cpu",
        mixed_precision="bf16" if on_cuda else "no",
        kwargs_handlers=[ddp],
    )


def _means(accelerator: Accelerator, pending: list[dict[str, Tensor]]) -> dict[str, float]:
    """The mean of each term over some steps and over the ranks."""
    table = torch.stack([torch.stack(list(terms.values())) for terms in pending]).mean(dim=0)
    values: list[float] = accelerator.reduce(table, "mean").tolist()
    return dict(zip(pending[0], values, strict=True))


def _checkpoint_due(saved_at: float) -> bool:
    return distributed.on_main_process(lambda: time.monotonic() - saved_at > CHECKPOINT_SECONDS)


class _Gradients:
    """Losses and gradients of one optimizer step, in as many parts as memory requires."""

    def __init__(self, accelerator: Accelerator, model: nn.Module, rows: Rows, device: str) -> None:
        self.accelerator = accelerator
        self.model = model
        self.rows = rows
        self.device = device
        self.parts = 1

    def compute(self, positions: NDArray[np.int64]) -> dict[str, Tensor]:
        """Gradients of this rank's slice of a batch; returns its terms.

        A batch that does not divide is filled up with its first rows, so that every rank has some.
        """
        ranks = self.accelerator.num_processes
        mine = np.resize(positions, math.ceil(len(positions) / ranks) * ranks)
        mine = mine[self.accelerator.process_index :: ranks]
        while True:
            self.model.zero_grad(set_to_none=True)
            try:
                return self._accumulate(np.array_split(mine, min(self.parts, len(mine))))
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
                self._use_smaller_parts(len(mine), error)

    def _accumulate(self, parts: list[NDArray[np.int64]]) -> dict[str, Tensor]:
        count = sum(map(len, parts))
        sums: dict[str, Tensor] = {}
        for part in parts:
            terms = self.model(collate(self.rows, part, self.device))
            weight = len(part) / count
            self.accelerator.backward(terms["total"] * weight)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value.detach().float() * weight
        return sums

    def _use_smaller_parts(self, rows: int, error: RuntimeError) -> None:
        if self.accelerator.num_processes > 1:
            raise TrainingError(
                f"out of memory on rank {self.accelerator.process_index} ({error}); lower "
                "batch_size or data.max_length, or start more processes"
            ) from error
        if self.parts >= rows:
            raise TrainingError(
                f"not even one row fits into the device's memory beside the models ({error}); "
                "lower data.max_length or train on another device"
            ) from error
        self.parts *= 2
        say(f"out of memory: gradients are now accumulated over {self.parts} parts of each batch")
        clear_device_cache(garbage_collection=True)


def _remaining_batches(
    phase: Phase, rows: Rows, step: int, steps: int
) -> Iterator[NDArray[np.int64]]:
    """Row positions of the batches from `step` on; seed and epoch decide the order of an epoch."""
    lengths = rows.lengths
    while step < steps:
        epoch, inside = divmod(step, steps_per_epoch(phase, len(rows)))
        order = epoch_order(lengths, phase.batch_size, phase.seed, epoch)
        for positions in order[inside : inside + steps - step]:
            yield positions
            step += 1


def _optimizer(model: nn.Module, phase: Phase) -> torch.optim.Optimizer:
    """AdamW; biases and LayerNorm weights (all vectors) are not decayed."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": phase.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=phase.learning_rate, fused=True)


def _rate(phase: Phase, step: int, steps: int) -> float:
    """Share of the learning rate at a step: linear warm-up, then linear decay to zero."""
    warmup_steps = max(1, round(phase.warmup * steps)) if phase.warmup else 0
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return max(0.0, (steps - step) / max(1, steps - warmup_steps))
