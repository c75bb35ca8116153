"""One training phase: seeded batches, optimizer, schedule, loss log, exact resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from factory.encoding import Batch, EncodedRows, collate, epoch_order
from factory.errors import TrainingError
from factory.progress import bar

CHECKPOINT_SECONDS = 60.0
LOG_POINTS = 100
MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True, slots=True)
class Phase:
    """How long and how fast to train; `warmup` is a share of the steps, the rest decays to 0."""

    name: str
    epochs: float
    batch_size: int
    learning_rate: float
    warmup: float
    weight_decay: float
    seed: int


@dataclass(frozen=True, slots=True)
class LossPoint:
    """Mean of one loss term over the steps since the point before it."""

    phase: str
    step: int
    term: str
    value: float


Losses = Callable[[Batch], tuple[Tensor, Mapping[str, Tensor]]]


def total_steps(phase: Phase, rows: int) -> int:
    """Optimizer steps of a phase over `rows` rows; a part of a batch counts as a step."""
    # rounded first: 1.1 epochs of 10 batches are 11.000000000000002 in floating point, not 12 steps
    return math.ceil(round(phase.epochs * math.ceil(rows / phase.batch_size), 6))


def train_phase(
    phase: Phase,
    modules: nn.ModuleDict,
    rows: EncodedRows,
    losses: Losses,
    checkpoint_file: Path,
    device: str,
) -> list[LossPoint]:
    """Train everything in `modules` on `losses`, resuming from `checkpoint_file` if it is there.

    A resumed phase continues with the same weights, optimizer, random state and batch order as
    one never interrupted. The finished phase leaves its last state in `checkpoint_file`.

    Args:
        losses: from a batch, the total to minimize and the terms to log.

    Raises:
        TrainingError: a loss is not a finite number.
    """
    optimizer = _optimizer(modules, phase)
    steps = total_steps(phase, len(rows))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _linear_schedule(phase, steps))
    state = _TrainingState(phase, modules, optimizer, schedule, checkpoint_file)
    torch.manual_seed(phase.seed)
    step = state.restore()
    if step >= steps:
        return state.points
    log_every = max(1, steps // LOG_POINTS)
    pending: list[Mapping[str, Tensor]] = []
    saved_at = time.monotonic()
    modules.train()
    with bar(phase.name, steps, "step", initial=step) as progress:
        for positions in _remaining_batches(phase, rows, step, steps):
            batch = collate(rows, positions, device)
            with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
                total, terms = losses(batch)
            optimizer.zero_grad(set_to_none=True)
            total.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(modules.parameters(), MAX_GRADIENT_NORM)
            optimizer.step()
            schedule.step()
            step += 1
            progress.advance()
            pending.append({"total": total.detach(), **terms})
            if step % log_every == 0 or step == steps:
                progress.note(state.log(step, pending))
                pending = []
                if time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                    state.save(step)
                    saved_at = time.monotonic()
    state.save(steps)
    return state.points


class _TrainingState:
    """Everything a checkpoint holds."""

    def __init__(
        self,
        phase: Phase,
        modules: nn.ModuleDict,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LambdaLR,
        file: Path,
    ) -> None:
        self.phase = phase
        self.modules = modules
        self.optimizer = optimizer
        self.schedule = schedule
        self.file = file
        self.points: list[LossPoint] = []

    def restore(self) -> int:
        """Load the checkpoint if there is one; returns the number of steps already done."""
        if not self.file.is_file():
            return 0
        saved = torch.load(self.file, map_location="cpu", weights_only=True)
        self.modules.load_state_dict(saved["modules"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        torch.set_rng_state(saved["random"])
        if saved["random_cuda"] is not None:
            torch.cuda.set_rng_state(saved["random_cuda"])
        self.points = [LossPoint(**point) for point in saved["points"]]
        return int(saved["step"])

    def save(self, step: int) -> None:
        """Write the checkpoint aside and put it in place with one rename."""
        temporary = self.file.with_name(f"{self.file.name}.tmp")
        content: dict[str, Any] = {
            "step": step,
            "modules": self.modules.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
            "points": [asdict(point) for point in self.points],
        }
        torch.save(content, temporary)
        temporary.replace(self.file)

    def log(self, step: int, pending: list[Mapping[str, Tensor]]) -> str:
        """Record the mean of each term since the last point; returns a text for the bar."""
        means = {
            term: float(torch.stack([terms[term].detach().float() for terms in pending]).mean())
            for term in pending[0]
        }
        broken = [term for term, value in means.items() if not math.isfinite(value)]
        if broken:
            raise TrainingError(
                f"{self.phase.name} phase, step {step}: {', '.join(broken)} is not a finite "
                f"number; lower its learning_rate (now {self.phase.learning_rate:g})"
            )
        self.points += [
            LossPoint(self.phase.name, step, term, value) for term, value in means.items()
        ]
        return f"loss {means['total']:.4f}"


def _remaining_batches(phase: Phase, rows: EncodedRows, step: int, steps: int) -> Any:
    """Row positions of the batches from `step` on; epochs are ordered anew from seed and epoch."""
    per_epoch = math.ceil(len(rows) / phase.batch_size)
    lengths = rows.lengths
    while step < steps:
        epoch, inside = divmod(step, per_epoch)
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


def _linear_schedule(phase: Phase, steps: int) -> Callable[[int], float]:
    warmup_steps = max(1, round(phase.warmup * steps))

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return max(0.0, (steps - step) / max(1, steps - warmup_steps))

    return factor
