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
from factory.store import Artifact, ArtifactKey, Status, Store

# Longer than a network file system caches a directory listing (NFS: acdirmax, 60 s).
SECONDS_UNTIL_SEEN = 90.0


def build_stage(store: Store, stage: Stage, run: Run) -> Artifact:
    """Return the stage's artifact, making it first if it is not in the store.

    Raises:
        FactoryError: the stage failed, or the store is damaged or full.
    """
    key, name = run.keys[stage.name], run.recipe.name
    status, artifact = distributed.from_first(lambda: _look(store, key))
    words: dict[Status, str] = {"cached": "cached", "resume": "resuming", "run": "running"}
    say(f"[{stage.name}] {words[status]}  {store.directory(key)}")
    if artifact is None and stage.on_every_rank:

        def make(output: Path) -> Facts:
            with tracking.stage(output, stage.name, name):
                return stage.make(output, run)

        made = None
        if distributed.current().first:
            made = store.build(key, name, make)
        else:
            _wait_until_seen(store.partial(key))
            make(store.partial(key))
        # an exception in `make` ends its process; the launcher then ends the others, wherever
        # in the training they are
        artifact = distributed.from_first(lambda: made)
    elif artifact is None:
        artifact = distributed.from_first(
            lambda: store.build(key, name, lambda output: stage.make(output, run))
        )
    assert artifact is not None
    _wait_until_seen(artifact.directory)
    return artifact


@contextlib.contextmanager
def lock_store(store: Store) -> Iterator[None]:
    """Lock the store on rank 0 for all processes of the run.

    Raises:
        StoreError: another run is using it.
    """
    with contextlib.ExitStack() as stack:
        distributed.from_first(lambda: stack.enter_context(store.locked()))
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
            f"process {different[0]} of {len(found)} sees another recipe, data or models than the "
            "first (their fingerprints differ); give every machine the same files"
        )


def _look(store: Store, key: ArtifactKey) -> tuple[Status, Artifact | None]:
    """What the store has of a stage; the working directory of an unfinished one is ready then."""
    status = store.status(key)
    if store.directory(key).exists():
        return status, store.load(key)
    store.partial(key).mkdir(parents=True, exist_ok=True)
    return status, None


def _wait_until_seen(directory: Path) -> None:
    """Give a shared file system time to show what rank 0 made."""
    if distributed.current().first:
        return
    deadline = time.monotonic() + SECONDS_UNTIL_SEEN
    while not directory.is_dir():
        if time.monotonic() > deadline:
            raise StoreError(
                f"{directory}: made by the first process, but not visible to this one; "
                "give --store a directory that all machines share"
            )
        time.sleep(0.2)
