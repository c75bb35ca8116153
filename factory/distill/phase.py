"""One training phase: seeded batches, optimizer, schedule, exact resume, several processes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from factory.distill.loss_log import LossPoint, bar_text, points_of, require_finite, term_means
from factory.distill.training_state import TrainingState
from factory.errors import TrainingError
from factory.models.encoding import Batch, Rows, Share, collate, epoch_order
from factory.runtime import distributed as processes
from factory.runtime import tracking
from factory.runtime.progress import bar, say

CHECKPOINT_SECONDS = 60.0
LOG_POINTS = 100
MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True, slots=True)
class Phase:
    """How long and how fast to train; `warmup` is a share of the steps."""

    name: str
    epochs: float
    batch_size: int
    learning_rate: float
    warmup: float
    weight_decay: float
    seed: int


Losses = Callable[[Batch], tuple[Tensor, Mapping[str, Tensor]]]


def total_steps(phase: Phase, rows: int) -> int:
    """Optimizer steps of a phase over `rows` rows; a part of a batch counts as a step."""
    # rounded first: 1.1 epochs of 10 batches are 11.000000000000002 in floating point, not 12 steps
    return math.ceil(round(phase.epochs * steps_per_epoch(phase, rows), 6))


def steps_per_epoch(phase: Phase, rows: int) -> int:
    """Batches of one pass over the rows, the last of which may be smaller."""
    return math.ceil(rows / phase.batch_size)


def train_phase(
    phase: Phase,
    modules: nn.ModuleDict,
    rows: Rows,
    losses: Losses,
    checkpoint_file: Path,
    device: str,
    *,
    row_weights: NDArray[np.float32] | None = None,
    score: Callable[[], float] | None = None,
) -> list[LossPoint]:
    """Train everything in `modules` on `losses`, resuming from `checkpoint_file` if it is there.

    A resumed phase continues with the same weights, optimizer, random state and batch order as
    one never interrupted. The finished phase leaves its last state in `checkpoint_file`. Several
    processes share the rows of each batch and take the same steps as one would; when memory runs
    out, a batch is computed in smaller parts, with the same sum.

    Args:
        losses: from a batch, the total to minimize and the terms to log.
        row_weights: weight of each row's loss, (rows,); unset, all weigh 1.
        score: called before the first step and after each epoch on the modules in eval mode; the
            weights with the highest score are kept.

    Raises:
        TrainingError: a loss is not a finite number, or memory runs out on a single row.
    """
    if device.startswith("cuda"):
        torch.set_float32_matmul_precision("high")  # TF32 for what autocast leaves in float32
    steps = total_steps(phase, len(rows))
    state = _begin(phase, modules, steps, checkpoint_file)
    if state.step >= steps:
        return state.points
    compute = _StepLosses(modules, losses, rows, row_weights, device)
    pending: list[Mapping[str, Tensor]] = []
    saved_at = time.monotonic()
    modules.train()
    if score is not None and state.step == 0:
        _remember_best(state, modules, score)
    with bar(phase.name, steps, "step", initial=state.step) as progress:
        for positions in _remaining_batches(phase, rows, state.step, steps):
            terms = compute(positions, state.step / steps)
            if state.step == 0:
                state.start_values = _log(phase, state, [terms])
            _update(state)
            progress.advance()
            pending.append(terms)
            if score is not None and _ends_epoch(phase, rows, state.step, steps):
                _remember_best(state, modules, score)
            if _log_due(state.step, steps):
                progress.note(bar_text(_log(phase, state, pending), state.start_values))
                pending = []
                if _checkpoint_due(saved_at):
                    state.save()
                    saved_at = time.monotonic()
    state.finish()
    state.save()
    processes.wait_for_all()
    return state.points


def _log_due(step: int, steps: int) -> bool:
    return step % max(1, steps // LOG_POINTS) == 0 or step == steps


def _begin(
    phase: Phase, modules: nn.ModuleDict, steps: int, checkpoint_file: Path
) -> TrainingState:
    """The state a phase starts or goes on with, the same weights in every process."""
    optimizer = _optimizer(modules, phase)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _schedule(phase, steps))
    state = TrainingState(modules, optimizer, schedule, checkpoint_file)
    torch.manual_seed(phase.seed + processes.current().rank)
    processes.wait_for_all()
    state.restore()
    processes.copy_from_first(modules.state_dict().values())
    return state


def _update(state: TrainingState) -> None:
    """One optimizer step on the gradients that are there."""
    parameters = list(state.modules.parameters())
    processes.average_gradients(parameters)
    nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
    state.optimizer.step()
    state.schedule.step()
    state.step += 1


def _checkpoint_due(saved_at: float) -> bool:
    return processes.from_first(lambda: time.monotonic() - saved_at > CHECKPOINT_SECONDS)


class _StepLosses:
    """Losses and gradients of one optimizer step, in as many parts as memory asks for."""

    def __init__(
        self,
        modules: nn.ModuleDict,
        losses: Losses,
        rows: Rows,
        weights: NDArray[np.float32] | None,
        device: str,
    ) -> None:
        self.modules = modules
        self.losses = losses
        self.rows = rows
        self.lengths = rows.lengths
        self.weights = np.ones(len(rows), dtype=np.float32) if weights is None else weights
        self.device = device
        self.device_type = torch.device(device).type
        self.parts = 1

    def __call__(self, positions: NDArray[np.int64], done: float) -> Mapping[str, Tensor]:
        """Compute the gradients of a step's rows; returns the terms as this process sees them."""
        while True:
            self.modules.zero_grad(set_to_none=True)
            try:
                return self._in_parts(positions, done)
            except torch.OutOfMemoryError as error:
                self._make_parts_smaller(positions, error)

    def _in_parts(self, positions: NDArray[np.int64], done: float) -> Mapping[str, Tensor]:
        group = processes.current()
        mine = positions[group.rank :: group.count]
        sums: dict[str, Tensor] = {}
        for part in np.array_split(mine, min(self.parts, max(1, len(mine)))):
            # a process left without rows still takes part in the averaging, with weight 0
            rows = part if len(part) else positions[:1]
            weights = self.weights[rows] * (len(part) > 0)
            share = self._share(positions, weights, group.count)
            batch = collate(self.rows, rows, self.device, share, done)
            with torch.autocast(self.device_type, torch.bfloat16, self.device_type == "cuda"):
                total, terms = self.losses(batch)
            total.backward()  # type: ignore[no-untyped-call]
            for name, value in {"total": total, **terms}.items():
                sums[name] = sums.get(name, 0.0) + value.detach()
        return sums

    def _share(
        self, positions: NDArray[np.int64], weights: NDArray[np.float32], processes_count: int
    ) -> Share:
        whole = self.weights[positions].astype(np.float64)
        lengths = self.lengths[positions]
        return Share(
            torch.from_numpy(weights).to(self.device, non_blocking=True),
            float(whole.sum()) / processes_count,
            float(whole @ lengths) / processes_count,
            float(whole @ lengths**2) / processes_count,
        )

    def _make_parts_smaller(self, positions: NDArray[np.int64], error: Exception) -> None:
        if self.parts >= len(positions):
            raise TrainingError(
                f"not even one row fits into the device's memory beside the models ({error}); "
                "lower data.max_length or train on another device"
            ) from error
        self.parts *= 2
        say(f"out of memory: each batch is now computed in {self.parts} parts, with the same sum")
        if self.device_type == "cuda":
            torch.cuda.empty_cache()


def _of_all(terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return dict(zip(terms, processes.averages(list(terms.values())), strict=True))


def _log(
    phase: Phase, state: TrainingState, pending: Sequence[Mapping[str, Tensor]]
) -> dict[str, float]:
    """Add the mean of each term over some steps to the log, and return it."""
    means = term_means([_of_all(terms) for terms in pending])
    require_finite(phase.name, state.step, means, phase.learning_rate)
    start_values = state.start_values or means
    state.points += points_of(phase.name, state.step, means, start_values)
    tracking.log(phase.name, phase.seed, state.step, means)
    return means


def _ends_epoch(phase: Phase, rows: Rows, step: int, steps: int) -> bool:
    return step == steps or step % steps_per_epoch(phase, len(rows)) == 0


def _remember_best(
    state: TrainingState, modules: nn.ModuleDict, score: Callable[[], float]
) -> None:
    modules.eval()
    state.remember_if_best(processes.from_first(score))
    modules.train()


def _remaining_batches(
    phase: Phase, rows: Rows, step: int, steps: int
) -> Iterator[NDArray[np.int64]]:
    """Row positions of the batches from `step` on; epochs are ordered anew from seed and epoch."""
    lengths = rows.lengths
    while step < steps:
        epoch, inside = divmod(step, steps_per_epoch(phase, len(rows)))
        order = epoch_order(lengths, phase.batch_size, phase.seed, epoch)
        for positions in order[inside : inside + steps - step]:
            yield positions
            step += 1


def _optimizer(modules: nn.ModuleDict, phase: Phase) -> torch.optim.Optimizer:
    """AdamW; biases and LayerNorm weights (all vectors) are not decayed."""
    parameters = [parameter for parameter in modules.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": phase.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=phase.learning_rate, fused=True)


def _schedule(phase: Phase, steps: int) -> Callable[[int], float]:
    """Linear warm-up, then linear decay to zero."""
    warmup_steps = max(1, round(phase.warmup * steps)) if phase.warmup else 0

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return max(0.0, (steps - step) / max(1, steps - warmup_steps))

    return factor
