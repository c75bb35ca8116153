"""The checkpoint of a training phase: one file with everything for an exact resume."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from factory.runtime import distributed
from factory.store import atomic_write
from factory.training.loss_log import LossPoint, points_of


class TrainingState:
    """Weights, optimizer, schedule, random state, best weights and loss log."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LambdaLR,
        file: Path,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.schedule = schedule
        self.file = file
        self.step = 0
        self.points: list[LossPoint] = []
        self.start_values: dict[str, float] = {}
        self.best_score = -math.inf
        self.best_weights: list[Tensor] = []

    def restore(self) -> None:
        """Load the checkpoint if it exists."""
        distributed.barrier()  # rank 0 may still be writing it in an earlier phase
        if not self.file.is_file():
            return
        saved = torch.load(self.file, map_location="cpu", weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        rank = distributed.current().rank
        # with more processes than before, the new ranks keep the random state of their seeds
        if rank < len(saved["random"]):
            torch.set_rng_state(saved["random"][rank])
            if saved["random_cuda"][rank] is not None and torch.cuda.is_available():
                torch.cuda.set_rng_state(saved["random_cuda"][rank])
        device = next(self.model.parameters()).device
        self.best_score = saved["best_score"]
        self.best_weights = [weight.to(device) for weight in saved["best_weights"]]
        self.points = [LossPoint(**point) for point in saved["points"]]
        self.start_values = saved["start_values"]
        self.step = int(saved["step"])

    def save(self) -> None:
        """Write the checkpoint atomically.

        Every rank calls this, for its random state; rank 0 writes.
        """
        random = distributed.gather(torch.get_rng_state())
        cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
        random_cuda = distributed.gather(cuda)
        if not distributed.current().is_main:
            return
        content = {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": random,
            "random_cuda": random_cuda,
            "best_score": self.best_score,
            "best_weights": self.best_weights,
            "points": [asdict(point) for point in self.points],
            "start_values": self.start_values,
        }
        with atomic_write(self.file) as temporary:
            torch.save(content, temporary)

    def add_points(self, phase: str, means: Mapping[str, float]) -> None:
        """Add the terms of this step to the loss log, relative to those of the first step."""
        self.start_values = self.start_values or dict(means)
        self.points += points_of(phase, self.step, means, self.start_values)

    def keep_if_best(self, score: float) -> None:
        """Keep a copy of the weights if the score is the highest so far."""
        if score > self.best_score:
            self.best_score = score
            self.best_weights = [weight.detach().clone() for weight in self.model.parameters()]

    @torch.no_grad()
    def finish(self) -> None:
        """Load the best weights into the module; without scores, keep the last ones."""
        for parameter, weight in zip(self.model.parameters(), self.best_weights, strict=False):
            parameter.copy_(weight)
        self.best_weights = []
