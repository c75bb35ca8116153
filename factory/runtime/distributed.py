"""The processes that train together: who this one is, and what passes between them."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from factory.errors import EXIT_ERROR, FactoryError, ProcessesError

if TYPE_CHECKING:
    from torch import Tensor, nn

Result = TypeVar("Result")

# How long the others wait for a stage that only the first process works on. A process that dies is
# noticed at once by whoever started them; this is only for one that hangs.
LONGEST_WAIT = timedelta(days=7)
# An error that all processes meet is told by the first; the others leave it this time to do so.
SECONDS_FOR_THE_FIRST = 2.0


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those started together (by `torchrun`, say); one alone is 0 of 1.

    Args:
        local_rank: its place among those on the same machine; the number of its CUDA device.
    """

    rank: int
    count: int
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and talks."""
        return self.rank == 0


class FirstProcessError(FactoryError):
    """The first process failed and tells why; this one only has to end with the same code."""

    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__("the first process failed, see its message")


def from_environment() -> Processes:
    """What `torchrun` or `accelerate launch` wrote into the environment; without them, 0 of 1.

    Raises:
        ProcessesError: the variables are no numbers.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    try:
        rank, count, local_rank = (
            int(os.environ.get(name, unset)) for name, unset in zip(names, "010", strict=True)
        )
    except ValueError as error:
        found = ", ".join(f"{name}={os.environ.get(name)}" for name in names)
        raise ProcessesError(
            f"{found}: not what torchrun sets; unset them, or start with torchrun"
        ) from error
    return Processes(rank, count, local_rank) if count > 1 else Processes(0, 1)


def current() -> Processes:
    """The group that `torch.distributed` was started with, or this process alone."""
    # no group without the module, which costs a second to import
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return Processes(0, 1)
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    return Processes(distributed.get_rank(), distributed.get_world_size(), local_rank)


@contextlib.contextmanager
def process_group(device: str) -> Iterator[None]:
    """Join the processes named in the environment; alone, do nothing.

    Args:
        device: auto, cpu or cuda; every process trains on a device of its own.

    Raises:
        ProcessesError: the group cannot be joined, a device is missing, or another process died.
    """
    own = from_environment()
    if own.count == 1:
        yield
        return
    _join(device)
    from torch import distributed

    try:
        yield
    except FirstProcessError as error:
        raise SystemExit(error.exit_code) from error
    except Exception as error:
        if not own.first:
            time.sleep(SECONDS_FOR_THE_FIRST)
            sys.stderr.write(f"process {own.rank} of {own.count}:\n")
        if isinstance(error, RuntimeError) and _lost_contact(error):
            raise ProcessesError(
                "another process ended, see its message above; start all of them again, "
                "finished work is kept"
            ) from error
        raise
    distributed.destroy_process_group()


def _join(device: str) -> None:
    import torch
    from torch import distributed

    from factory.runtime.devices import pick_device

    place = pick_device(device, from_environment())
    on_cuda = place.startswith("cuda")
    if on_cuda:
        torch.cuda.set_device(place)
    # objects and waiting go through gloo on the CPU in any case
    backend = "cpu:gloo,cuda:nccl" if on_cuda else "gloo"
    try:
        distributed.init_process_group(backend, timeout=LONGEST_WAIT)
    except (ValueError, RuntimeError) as error:
        raise ProcessesError(
            f"the processes of WORLD_SIZE={os.environ['WORLD_SIZE']} cannot find each other "
            f"({error}); start them with torchrun, or unset WORLD_SIZE to train alone"
        ) from error


def _lost_contact(error: RuntimeError) -> bool:
    from torch import distributed

    words = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
    is_backend_error = isinstance(error, distributed.DistError)
    return is_backend_error or any(text in str(error) for text in words)


def from_first(compute: Callable[[], Result]) -> Result:
    """What `compute` returns in the first process, in all of them; the others do not call it.

    Raises:
        Exception: what `compute` raised, in the first process; FirstProcessError in the others.
    """
    from_one = current()
    if from_one.count == 1:
        return compute()
    if not from_one.first:
        failed, value = _sent_by_first(None)
        if failed is not None:
            raise FirstProcessError(failed)
        return value  # type: ignore[no-any-return]
    try:
        result = compute()
    except Exception as error:
        _sent_by_first((error.exit_code if isinstance(error, FactoryError) else EXIT_ERROR, None))
        raise
    _sent_by_first((None, result))
    return result


def _sent_by_first(message: Any) -> Any:
    from torch import distributed

    box = [message]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def gather(value: Result) -> list[Result]:
    """Every process's value, in the order of the processes, in all of them."""
    group = current()
    if group.count == 1:
        return [value]
    from torch import distributed

    values: list[Any] = [None] * group.count
    distributed.all_gather_object(values, value)
    return values


def copy_from_first(tensors: Iterable[Tensor]) -> None:
    """Overwrite every tensor with the first process's."""
    if current().count == 1:
        return
    from torch import distributed

    for tensor in tensors:
        distributed.broadcast(tensor.detach(), src=0)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes.

    All processes run the same losses, so the parameters without a gradient are the same on each.
    """
    count = current().count
    if count == 1:
        return
    import torch
    from torch import distributed

    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    for work in [distributed.all_reduce(gradient, async_op=True) for gradient in gradients]:
        work.wait()
    torch._foreach_div_(gradients, count)


def averages(values: Sequence[Tensor]) -> list[Tensor]:
    """Mean of each tensor over the processes."""
    count = current().count
    if count == 1:
        return list(values)
    from torch import distributed

    results = []
    for value in values:
        total = value.detach().clone()
        distributed.all_reduce(total)
        results.append(total / count)
    return results


def wait_for_all() -> None:
    """Return when every process has come this far."""
    gather(None)
