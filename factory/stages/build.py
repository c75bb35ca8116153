"""Make the artifact of one stage, once for all processes of a run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from factory.errors import ProcessesError, StoreError
from factory.runtime import distributed, tracking
from factory.runtime.progress import say
from factory.stages.stage import Facts, Run, Stage
from factory.store import Artifact, Status, Store

# Longer than a network file system caches a directory listing (NFS: acdirmax, 60 s).
SECONDS_UNTIL_SEEN = 90.0


def build_stage(store: Store, stage: Stage, run: Run) -> Artifact:
    """Return the stage's artifact, making it first if it is not in the store.

    Raises:
        FactoryError: the stage failed, or the store is damaged or full.
    """
    key, name = run.keys[stage.name], run.recipe.name
    status = distributed.on_main_process(lambda: store.status(key))
    words: dict[Status, str] = {"cached": "cached", "resume": "resuming", "run": "running"}
    say(f"[{stage.name}] {words[status]}  {store.directory(key)}")

    def make(output: Path) -> Facts:
        with tracking.stage(output, stage.name, name):
            return stage.make(output, run)

    made = None
    if status != "cached" and stage.on_every_rank:
        # an exception in `make` ends its process; the launcher then ends the others, wherever
        # in the training they are
        if distributed.current().is_main:
            made = store.build(key, name, make)
        else:
            _wait_until_seen(store.partial(key))
            make(store.partial(key))
    artifact = distributed.on_main_process(
        lambda: made or store.build(key, name, lambda output: stage.make(output, run))
    )
    _wait_until_seen(artifact.directory)
    return artifact


@contextlib.contextmanager
def lock_store(store: Store) -> Iterator[None]:
    """Lock the store on rank 0 for all processes of the run.

    Raises:
        StoreError: another run is using it.
    """
    with contextlib.ExitStack() as stack:
        distributed.on_main_process(lambda: stack.enter_context(store.locked()))
        yield


def check_same_fingerprint(fingerprint: str) -> None:
    """Stop processes that see different recipes, data or models.

    Raises:
        ProcessesError: the fingerprints differ.
    """
    found = distributed.gather(fingerprint)
    different = [rank for rank, other in enumerate(found) if other != found[0]]
    if different:
        raise ProcessesError(
            f"rank {different[0]} of {len(found)} sees another recipe, data or models than rank 0 "
            "(their fingerprints differ); give every machine the same files"
        )


def _wait_until_seen(directory: Path) -> None:
    """Wait until the artifact of rank 0 is visible on a shared file system."""
    deadline = time.monotonic() + SECONDS_UNTIL_SEEN
    while not distributed.current().is_main and not directory.is_dir():
        if time.monotonic() > deadline:
            raise StoreError(
                f"{directory}: made by rank 0, but not visible to this rank; "
                "give --store a directory that all machines share"
            )
        time.sleep(0.2)
