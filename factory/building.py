"""How stages are built when several processes walk the pipeline: who decides, makes, publishes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from factory.errors import ProcessesError, StoreError
from factory.runtime import distributed as processes
from factory.runtime import tracking
from factory.runtime.progress import say
from factory.store import Artifact, Status, Step, Store

Facts = dict[str, Any]
Make = Callable[[Path], Facts]
Build = Callable[[Step, Make], Artifact]

# Stages that run in every process, on shares of the same batches; the first process makes the
# others alone, while the rest wait for it.
TRAINED_TOGETHER = frozenset(
    {"teacher", "general", "mlm", "augment", "distill", "prune", "baseline"}
)
# Longer than a network file system keeps an outdated listing (NFS: acdirmax, 60 s).
SECONDS_UNTIL_SEEN = 90.0


def announcing_build(store: Store, recipe_name: str) -> Build:
    """`Store.build` that says what it does with each stage, and does it once for all processes."""

    def build(step: Step, make: Make) -> Artifact:
        words = {"cached": "cached", "resume": "resuming", "run": "running"}
        status, artifact = processes.from_first(lambda: _look(store, step))
        say(f"[{step.stage}] {words[status]}  {store.directory(step)}")
        make = _tracked(step, recipe_name, make)
        if artifact is None and step.stage in TRAINED_TOGETHER:
            artifact = _build_together(store, step, recipe_name, make)
        elif artifact is None:
            artifact = processes.from_first(lambda: store.build(step, recipe_name, make))
        _wait_until_seen(artifact.directory)
        return artifact

    return build


def _tracked(step: Step, recipe_name: str, make: Make) -> Make:
    def make_tracked(here: Path) -> Facts:
        with tracking.stage(here, step.stage, recipe_name):
            return make(here)

    return make_tracked if step.stage in TRAINED_TOGETHER else make


@contextlib.contextmanager
def held(store: Store) -> Iterator[None]:
    """Hold the store alone; the first process holds it for all.

    Raises:
        StoreError: another run holds it.
    """
    with contextlib.ExitStack() as stack:
        processes.from_first(lambda: stack.enter_context(store.locked()))
        yield


def require_same_work(fingerprint: str) -> None:
    """Stop processes that do not see the same recipe, data and models.

    Raises:
        ProcessesError: the fingerprints differ.
    """
    found = processes.gather(fingerprint)
    different = [rank for rank, other in enumerate(found) if other != found[0]]
    if different:
        raise ProcessesError(
            f"process {different[0]} of {len(found)} sees another recipe, data or models than the "
            "first (their fingerprints differ); give every machine the same files"
        )


def _look(store: Store, step: Step) -> tuple[Status, Artifact | None]:
    """What there is of a stage; one that is not made finds its working directory ready."""
    status = store.status(step)
    if store.directory(step).exists():
        return status, store.load(step)
    store.partial(step).mkdir(parents=True, exist_ok=True)
    return status, None


def _build_together(store: Store, step: Step, recipe_name: str, make: Make) -> Artifact:
    made = None
    if processes.current().first:
        made = store.build(step, recipe_name, make)
    else:
        _wait_until_seen(store.partial(step))
        make(store.partial(step))
    # an error in `make` ends its process without a word to the others, who may stand anywhere in
    # the training; whoever started the processes ends them
    artifact = processes.from_first(lambda: made)
    assert artifact is not None
    return artifact


def _wait_until_seen(directory: Path) -> None:
    """Give a shared file system time to show what the first process made."""
    if processes.current().first:
        return
    deadline = time.monotonic() + SECONDS_UNTIL_SEEN
    while not directory.is_dir():
        if time.monotonic() > deadline:
            raise StoreError(
                f"{directory}: made by the first process, but not there for this one; "
                "give --store a directory that all machines share"
            )
        time.sleep(0.2)
