"""The processes that train together: who this one is, and what they average."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those started together (by `torchrun`, say); one alone is 0 of 1."""

    rank: int
    count: int

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and talks."""
        return self.rank == 0


def current() -> Processes:
    """The group that `torch.distributed` was started with, or this process alone."""
    from torch import distributed

    if not distributed.is_available() or not distributed.is_initialized():
        return Processes(0, 1)
    return Processes(distributed.get_rank(), distributed.get_world_size())


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes.

    All processes run the same losses, so the parameters without a gradient are the same on each.
    """
    import torch
    from torch import distributed

    count = current().count
    if count == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    for work in [distributed.all_reduce(gradient, async_op=True) for gradient in gradients]:
        work.wait()
    torch._foreach_div_(gradients, count)


def averages(values: Sequence[Tensor]) -> list[Tensor]:
    """Mean of each tensor over the processes."""
    from torch import distributed

    count = current().count
    if count == 1:
        return list(values)
    results = []
    for value in values:
        total = value.detach().clone()
        distributed.all_reduce(total)
        results.append(total / count)
    return results


def wait_for_all() -> None:
    """Return when every process has come this far."""
    from torch import distributed

    if current().count > 1:
        distributed.barrier()
