"""The device that a process computes on."""

from __future__ import annotations

from factory.errors import FactoryError
from factory.runtime.distributed import Rank, current


def pick_device(wanted: str, group: Rank | None = None) -> str:
    """Resolve --device to `cpu`, `cuda`, or `cuda:INDEX` in a process group.

    Args:
        wanted: auto, cpu or cuda; auto is cuda if torch can use it.
        group: this process's rank; default: `distributed.current()`.

    Raises:
        FactoryError: no usable CUDA device, or fewer devices than processes on this machine.
    """
    import torch

    usable = torch.cuda.is_available()
    if wanted == "cuda" and not usable:
        raise FactoryError(
            "--device cuda: torch finds no usable CUDA device; `factory doctor` lists the devices, "
            "--device cpu trains without a GPU"
        )
    if not usable or wanted == "cpu":
        return "cpu"
    own = group or current()
    if own.world_size == 1:
        return "cuda"
    if own.local_rank >= torch.cuda.device_count():
        raise FactoryError(
            f"process {own.local_rank + 1} on a machine with {torch.cuda.device_count()} CUDA "
            "devices; start at most one process per device (--nproc-per-node)"
        )
    return f"cuda:{own.local_rank}"
