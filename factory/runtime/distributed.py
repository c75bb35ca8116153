"""The processes of one run: ranks, the process group, broadcast, gather and barrier."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from factory.errors import EXIT_ERROR, FactoryError, ProcessesError

Result = TypeVar("Result")

# How long other ranks wait for a stage that only rank 0 makes. The launcher notices a dead process
# at once; this limit is only for one that hangs.
LONGEST_WAIT = timedelta(days=7)
# Rank 0 reports an error that all ranks meet; the others give it this time to do so.
SECONDS_FOR_RANK_ZERO = 2.0


@dataclass(frozen=True, slots=True)
class Rank:
    """The rank of this process; a single process is rank 0 of 1.

    Args:
        local_rank: rank among the processes of this machine; the number of its CUDA device.
    """

    rank: int
    world_size: int
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0


class MainProcessError(FactoryError):
    """Rank 0 failed and reports why; this rank only ends with the same exit code."""

    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__("rank 0 failed, see its message")


def from_environment() -> Rank:
    """The rank that `torchrun` or `accelerate launch` set in the environment; else rank 0 of 1.

    Raises:
        ProcessesError: the variables are not numbers.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    try:
        rank, world_size, local_rank = (
            int(os.environ.get(name, unset)) for name, unset in zip(names, "010", strict=True)
        )
    except ValueError as error:
        found = ", ".join(f"{name}={os.environ.get(name)}" for name in names)
        raise ProcessesError(
            f"{found}: not integers; unset these variables, or start with torchrun"
        ) from error
    return Rank(rank, world_size, local_rank) if world_size > 1 else Rank(0, 1)


def current() -> Rank:
    """The rank in the process group of `torch.distributed`, or rank 0 of 1 without a group."""
    # without the module, which takes a second to import, there is no group
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return Rank(0, 1)
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    return Rank(distributed.get_rank(), distributed.get_world_size(), local_rank)


@contextlib.contextmanager
def process_group(device: str) -> Iterator[None]:
    """Join the process group that the environment describes; do nothing for a single process.

    Args:
        device: auto, cpu or cuda; every rank trains on its own device.

    Raises:
        ProcessesError: the group cannot be joined, a device is missing, or another process died.
    """
    own = from_environment()
    if own.world_size == 1:
        yield
        return
    import torch
    from torch import distributed

    place = pick_device(device, own)
    on_cuda = place.startswith("cuda")
    if on_cuda:
        torch.cuda.set_device(place)
    # gloo transfers objects and barriers on the CPU for every device
    backend = "cpu:gloo,cuda:nccl" if on_cuda else "gloo"
    try:
        distributed.init_process_group(backend, timeout=LONGEST_WAIT)
    except (ValueError, RuntimeError) as error:
        raise ProcessesError(
            f"cannot join the process group of WORLD_SIZE={own.world_size} ({error}); "
            "start with torchrun, or unset WORLD_SIZE to train with one process"
        ) from error
    try:
        yield
    except MainProcessError as error:
        raise SystemExit(error.exit_code) from error
    except Exception as error:
        if not own.is_main:
            time.sleep(SECONDS_FOR_RANK_ZERO)
            sys.stderr.write(f"rank {own.rank} of {own.world_size}:\n")
        texts = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
        lost = isinstance(error, RuntimeError) and any(text in str(error) for text in texts)
        if lost or isinstance(error, distributed.DistError):
            raise ProcessesError(
                "another process ended, see its message above; start all processes again, "
                "finished work is kept"
            ) from error
        raise
    distributed.destroy_process_group()


def on_main_process(compute: Callable[[], Result]) -> Result:
    """Run `compute` on rank 0 and broadcast its result to every rank.

    Raises:
        Exception: that of `compute` on rank 0; MainProcessError on the others.
    """
    own = current()
    if own.world_size == 1:
        return compute()
    if not own.is_main:
        failed, value = broadcast(None)
        if failed is not None:
            raise MainProcessError(failed)
        return value  # type: ignore[no-any-return]
    try:
        result = compute()
    except Exception as error:
        broadcast((error.exit_code if isinstance(error, FactoryError) else EXIT_ERROR, None))
        raise
    broadcast((None, result))
    return result


def broadcast(value: Any) -> Any:
    """The value of rank 0, on every rank."""
    from torch import distributed

    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def gather(value: Result) -> list[Result]:
    """Every rank's value, ordered by rank, on every rank."""
    own = current()
    if own.world_size == 1:
        return [value]
    from torch import distributed

    values: list[Any] = [None] * own.world_size
    distributed.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Wait until every rank reaches this point."""
    gather(None)


def pick_device(wanted: str, group: Rank | None = None) -> str:
    """Resolve --device to `cpu`, `cuda`, or `cuda:INDEX` in a process group.

    Args:
        wanted: auto, cpu or cuda; auto is cuda if torch can use it.
        group: this process's rank; default: `current()`.

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
