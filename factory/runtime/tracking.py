"""Log losses during training: to TensorBoard files in the stage's output, and to trackers.

Data leaves the machine only if a tracker is requested by name. Logging does not affect results:
event files are not part of an artifact's content.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from factory.errors import MissingDependencyError, TrackingError, first_line
from factory.runtime import distributed
from factory.runtime.progress import say

Tracker = Literal["mlflow", "wandb"]
PROJECT = "tinybert-factory"
EVENTS = "tensorboard"  # directory of event files, not part of an artifact's content
FLUSH_SECONDS = 10  # a killed process loses at most this; losses.csv at the end is complete


class _Stage:
    """The log targets of a running stage: event files by series, and trackers."""

    def __init__(self, directory: Path, trackers: list[Tracker]) -> None:
        self.directory = directory
        self.trackers = trackers
        self.writers: dict[str, Any] = {}

    def writer(self, series: str) -> Any:
        """The TensorBoard writer of a series."""
        if series not in self.writers:
            from tensorboardX import SummaryWriter

            folder = str(self.directory / EVENTS / series)
            self.writers[series] = SummaryWriter(folder, flush_secs=FLUSH_SECONDS)
        return self.writers[series]


_requested: tuple[Tracker, ...] = ()
_stage: _Stage | None = None


@contextlib.contextmanager
def trackers(requested: Sequence[Tracker]) -> Iterator[None]:
    """Also send losses to these trackers inside this context.

    Raises:
        MissingDependencyError: a tracker is not installed.
    """
    global _requested
    for name in requested:
        if importlib.util.find_spec(name) is None:
            raise MissingDependencyError(f"{name} is not installed; run: pip install {name}")
    _requested = tuple(dict.fromkeys(requested))
    try:
        yield
    finally:
        _requested = ()


@contextlib.contextmanager
def stage(directory: Path, stage_name: str, recipe_name: str) -> Iterator[None]:
    """Log one stage, as one run of each tracker; only rank 0 writes."""
    global _stage
    if not distributed.from_environment().is_main:
        yield
        return
    with contextlib.ExitStack() as stack:
        for name in _requested:
            stack.enter_context(_run_of(name, stage_name, recipe_name))
        running = _stage = _Stage(directory, list(_requested))
        try:
            yield
        finally:
            _stage = None
            for writer in running.writers.values():
                writer.close()


def log(phase: str, seed: int, step: int, values: Mapping[str, float]) -> None:
    """Log loss terms of a phase; the seed separates students of the same stage."""
    if _stage is None:
        return
    if importlib.util.find_spec("tensorboardX") is not None:
        for term, value in values.items():
            _stage.writer(f"{phase}-seed-{seed}").add_scalar(f"{phase}/{term}", value, step)
    named = {f"{phase}/seed-{seed}/{term}": value for term, value in values.items()}
    for name in tuple(_stage.trackers):
        try:
            if name == "mlflow":
                import mlflow

                mlflow.log_metrics(named, step=step)
            else:
                import wandb

                # wandb's own step cannot restart at 0 for each phase
                wandb.log({**named, f"{phase}/seed-{seed}/step": step})
        except Exception as error:  # a network failure must not end hours of training
            say(f"{name} failed ({first_line(error)}); the stage continues without it")
            _stage.trackers.remove(name)


@contextlib.contextmanager
def _run_of(tracker: Tracker, stage_name: str, recipe_name: str) -> Iterator[None]:
    """Start a run of a tracker.

    Raises:
        TrackingError: the tracker does not start.
    """
    name = f"{recipe_name} {stage_name}"
    try:
        if tracker == "mlflow":
            import mlflow

            run = mlflow.start_run(run_name=name)
        else:
            import wandb

            run = wandb.init(project=os.environ.get("WANDB_PROJECT", PROJECT), name=name)
    except Exception as error:  # the trackers' errors share no base class
        raise TrackingError(
            f"{tracker} does not start: {first_line(error)}; see its documentation, or run "
            f"without --track {tracker}"
        ) from error
    with run:
        yield
