"""Everything that one training phase needs to go on exactly where it was."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from factory.distill.loss_log import LossPoint
from factory.runtime import distributed as processes


class TrainingState:
    """Weights, optimizer, schedule, random state, best score and loss log."""

    def __init__(
        self,
        modules: nn.ModuleDict,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LambdaLR,
        file: Path,
    ) -> None:
        self.modules = modules
        self.optimizer = optimizer
        self.schedule = schedule
        self.file = file
        self.step = 0
        self.points: list[LossPoint] = []
        self.start_values: dict[str, float] = {}
        self.best_score = -math.inf
        self.best_weights: list[Tensor] = []

    def restore(self) -> None:
        """Load the checkpoint if there is one."""
        if not self.file.is_file():
            return
        saved = torch.load(self.file, map_location="cpu", weights_only=True)
        self.modules.load_state_dict(saved["modules"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        rank = processes.current().rank
        # with more processes than before, the new ones go on from their seeds
        if rank < len(saved["random"]):
            torch.set_rng_state(saved["random"][rank])
            if saved["random_cuda"][rank] is not None and torch.cuda.is_available():
                torch.cuda.set_rng_state(saved["random_cuda"][rank])
        device = next(iter(self._weights())).device
        self.best_score = saved["best_score"]
        self.best_weights = [weight.to(device) for weight in saved["best_weights"]]
        self.points = [LossPoint(**point) for point in saved["points"]]
        self.start_values = saved["start_values"]
        self.step = int(saved["step"])

    def save(self) -> None:
        """Write the checkpoint aside and put it in place with one rename.

        Every process calls this, for its random state; the first writes.
        """
        random = processes.gather(torch.get_rng_state())
        random_cuda = processes.gather(_cuda_random_state())
        if not processes.current().first:
            return
        temporary = self.file.with_name(f"{self.file.name}.tmp")
        content: dict[str, Any] = {
            "step": self.step,
            "modules": self.modules.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": random,
            "random_cuda": random_cuda,
            "best_score": self.best_score,
            "best_weights": self.best_weights,
            "points": [asdict(point) for point in self.points],
            "start_values": self.start_values,
        }
        torch.save(content, temporary)
        temporary.replace(self.file)

    def remember_if_best(self, score: float) -> None:
        """Keep a copy of the weights, as they are now, when no earlier score was as high."""
        if score > self.best_score:
            self.best_score = score
            self.best_weights = [weight.clone() for weight in self._weights()]

    def finish(self) -> None:
        """Leave the best or the last weights in the modules."""
        self._put(self.best_weights)
        self.best_weights = []

    def _weights(self) -> list[Tensor]:
        return [parameter.detach() for parameter in self.modules.parameters()]

    @torch.no_grad()
    def _put(self, weights: list[Tensor]) -> None:
        for parameter, weight in zip(self.modules.parameters(), weights, strict=False):
            parameter.copy_(weight)


def _cuda_random_state() -> Tensor | None:
    return torch.cuda.get_rng_state() if torch.cuda.is_available() else None
