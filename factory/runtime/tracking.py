"""Log losses during training: to TensorBoard files in the stage's output, and to trackers.

Nothing leaves the machine unless a tracker is requested by name. Logging does not affect results:
event files are not part of an artifact's content.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from factory.errors import MissingDependencyError, TrackingError, first_line
from factory.runtime import distributed
from factory.runtime.progress import say

Tracker = Literal["mlflow", "wandb"]
TRACKERS: tuple[Tracker, ...] = get_args(Tracker)
PROJECT = "tinybert-factory"
EVENTS = "tensorboard"  # directory of event files, not part of an artifact's content
# Fraction of the training steps between two log entries.
LOGGED_SHARE = 0.01
FLUSH_SECONDS = 10  # a killed process loses at most this; losses.csv at the end is complete


@dataclass
class _State:
    """Open log targets of this process; only rank 0 writes.

    Args:
        asked: trackers requested by name.
        directory: output of the running stage; None outside stages.
        writers: TensorBoard writers by series, opened on first use.
    """

    asked: tuple[Tracker, ...] = ()
    directory: Path | None = None
    writers: dict[str, Any] = field(default_factory=dict)
    warned: bool = False


_state = _State()


@contextlib.contextmanager
def trackers(asked: Sequence[Tracker]) -> Iterator[None]:
    """Also send losses to these trackers inside this context.

    Raises:
        MissingDependencyError: a tracker is not installed.
    """
    for name in asked:
        if importlib.util.find_spec(name) is None:
            raise MissingDependencyError(f"{name} is not installed; run: pip install {name}")
    _state.asked = tuple(dict.fromkeys(asked))
    try:
        yield
    finally:
        _state.asked = ()


@contextlib.contextmanager
def stage(directory: Path, stage_name: str, recipe_name: str) -> Iterator[None]:
    """Track one stage as one run of each tracker; close the event files at the end."""
    _state.directory = directory
    with contextlib.ExitStack() as stack:
        stack.callback(_close)
        if distributed.from_environment().first:
            for name in _state.asked:
                stack.enter_context(_run_of(name, stage_name, recipe_name))
        yield


def log(phase: str, seed: int, step: int, values: Mapping[str, float]) -> None:
    """Log loss terms of a phase; the seed separates students of the same stage."""
    if _state.directory is None or not distributed.from_environment().first:
        return
    writer = _writer(f"{phase}-seed-{seed}")
    for term, value in values.items():
        if writer is not None:
            writer.add_scalar(f"{phase}/{term}", value, step)
    named = {f"{phase}/seed-{seed}/{term}": value for term, value in values.items()}
    for name in _state.asked:
        try:
            _send(name, named, f"{phase}/seed-{seed}/step", step)
        except Exception as error:  # a network failure must not end hours of training
            say(f"{name} failed ({first_line(error)}); nothing more is sent to it in this run")
            _state.asked = tuple(other for other in _state.asked if other != name)


def _send(tracker: Tracker, values: Mapping[str, float], step_name: str, step: int) -> None:
    if tracker == "mlflow":
        import mlflow

        mlflow.log_metrics(dict(values), step=step)
        return
    import wandb

    wandb.log({**values, step_name: step})  # wandb's own step cannot restart at 0 for each phase


def trainer_arguments() -> dict[str, Any]:
    """How a Hugging Face Trainer reports: what is asked for, never whatever is installed.

    All processes must log alike, since a Trainer gathers the losses of all when it does; its
    integrations then write in the first.
    """
    if _state.directory is None:
        return {"report_to": [], "logging_strategy": "no"}
    return {
        "report_to": [*(["tensorboard"] if _has_tensorboard() else []), *_state.asked],
        "logging_strategy": "steps",
        "logging_steps": LOGGED_SHARE,
        "logging_dir": str(_state.directory / EVENTS / "trainer"),
    }


def _writer(series: str) -> Any:
    """The TensorBoard writer of a series, or None if tensorboardX is not installed."""
    assert _state.directory is not None, "checked by the caller"
    if series not in _state.writers:
        if not _has_tensorboard():
            return None
        from tensorboardX import SummaryWriter

        folder = str(_state.directory / EVENTS / series)
        _state.writers[series] = SummaryWriter(folder, flush_secs=FLUSH_SECONDS)
    return _state.writers[series]


def _has_tensorboard() -> bool:
    """Whether event files can be written; logs a line the first time they cannot."""
    if importlib.util.find_spec("tensorboardX") is not None:
        return True
    if not _state.warned:
        say("no TensorBoard files are written; run: pip install tensorboardX")
        _state.warned = True
    return False


def _close() -> None:
    for writer in _state.writers.values():
        writer.close()
    _state.writers.clear()
    _state.directory = None


@contextlib.contextmanager
def _run_of(tracker: Tracker, stage_name: str, recipe_name: str) -> Iterator[None]:
    """Start a run of a tracker; a Trainer's own integration uses the same run.

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
