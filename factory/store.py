"""Artifacts on disk: fingerprints, partial and published directories, records."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from factory.errors import StoreError, write_failure
from factory.runtime.tracking import EVENTS

ARTIFACT_FILE = "artifact.json"
Status = Literal["cached", "resume", "run"]


@dataclass(frozen=True, slots=True)
class ArtifactKey:
    """Everything that decides the bytes of a stage's artifact.

    Args:
        version: of the stage's code.
        settings: the recipe settings the stage reads and the identity of its sources, as JSON data.
        inputs: fingerprint of each artifact it reads, by stage.
    """

    stage: str
    version: int
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over name, version, settings and inputs, in hexadecimal."""
        identity = [self.stage, self.version, dict(self.settings), dict(self.inputs)]
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def directory_name(self) -> str:
        """The name of the artifact's directory."""
        return directory_name(self.stage, self.fingerprint)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A published directory and the facts its stage recorded."""

    directory: Path
    fingerprint: str
    facts: Mapping[str, Any]


class Store:
    """A directory of artifacts, used by one run at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def directory(self, key: ArtifactKey) -> Path:
        """The directory of the published artifact."""
        return self.root / key.directory_name

    def partial(self, key: ArtifactKey) -> Path:
        """The directory in which the artifact is made."""
        return self.root / f"{key.directory_name}.partial"

    def status(self, key: ArtifactKey) -> Status:
        """Whether the artifact is published, partial, or neither."""
        if (self.directory(key) / ARTIFACT_FILE).is_file():
            return "cached"
        return "resume" if self.partial(key).is_dir() else "run"

    def load(self, key: ArtifactKey) -> Artifact:
        """Load the published artifact.

        Raises:
            StoreError: it does not exist, or files of it were removed or changed in size.
        """
        return load_artifact(self.directory(key), key.fingerprint)

    def build(
        self, key: ArtifactKey, label: str, make: Callable[[Path], Mapping[str, Any]]
    ) -> Artifact:
        """Return the artifact, making it first if it does not exist.

        Args:
            label: the recipe's name; a later plan compares artifacts of the same recipe.
            make: writes files into a directory, which has the files of an interrupted run, and
                returns the stage's facts.

        Raises:
            StoreError: as `load`, or the disk is full.
        """
        # before the work: a directory without its record would prevent the rename after it
        if self.directory(key).exists():
            return self.load(key)
        partial = self.partial(key)
        partial.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        try:
            facts = dict(make(partial))
        except Exception as error:
            reason = write_failure(error, partial)
            if reason is None:
                raise
            raise StoreError(
                f"{partial}: {reason}; free disk space and run again, finished work is kept"
            ) from error
        record = {
            "stage": key.stage,
            "stage_version": key.version,
            "fingerprint": key.fingerprint,
            "recipe_name": label,
            "settings": dict(key.settings),
            "inputs": dict(key.inputs),
            "facts": facts,
            "seconds": round(time.monotonic() - started, 3),
            "files": _file_sizes(partial),
        }
        write_json(partial / ARTIFACT_FILE, record)
        partial.rename(self.directory(key))
        return self.load(key)

    def discard(self, key: ArtifactKey) -> None:
        """Remove the partial directory."""
        shutil.rmtree(self.partial(key), ignore_errors=True)

    def records(self, stage: str) -> list[dict[str, Any]]:
        """The records of every published artifact of one stage, newest first."""
        files = self.root.glob(f"{stage}-*/{ARTIFACT_FILE}")
        newest = sorted(files, key=lambda file: file.stat().st_mtime, reverse=True)
        return [read_json(f) for f in newest if not f.parent.name.endswith(".partial")]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the store for one run; the OS releases the lock when the process ends.

        Raises:
            StoreError: another run holds the lock.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoreError(
                    f"{self.root}: another run is using this store; wait for it, "
                    "or give this one its own with --store DIRECTORY"
                ) from error
            yield


def directory_name(stage: str, fingerprint: str) -> str:
    """The directory name of an artifact: stage and twelve digits of the fingerprint."""
    return f"{stage}-{fingerprint[:12]}"


def load_artifact(directory: Path, fingerprint: str | None = None) -> Artifact:
    """Read a published artifact and check that its files exist.

    Raises:
        StoreError: no artifact, another fingerprint, or a file missing or of another size.
    """
    record_file = directory / ARTIFACT_FILE
    if not record_file.is_file():
        raise StoreError(
            f"{directory}: not a finished artifact ({ARTIFACT_FILE} is missing); "
            "move it away and run again"
        )
    record = read_json(record_file)
    if fingerprint is not None and record.get("fingerprint") != fingerprint:
        raise StoreError(f"{directory}: unexpected fingerprint; delete it and run again")
    found = _file_sizes(directory)
    for name, size_bytes in record["files"].items():
        if found.get(name) != size_bytes:
            state = "missing" if name not in found else f"{found[name]} bytes, not {size_bytes}"
            raise StoreError(f"{directory / name}: {state}; delete {directory} and run again")
    return Artifact(directory, record["fingerprint"], record["facts"])


@contextlib.contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """A temporary path that replaces `file` at the end: readers see the old file or the new one."""
    temporary = file.with_name(f".{file.name}.tmp")
    yield temporary
    temporary.replace(file)


def write_json(path: Path, data: object) -> None:
    """Write JSON atomically."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as handle:
        json.dump(data, handle, indent=2, ensure_ascii=False, allow_nan=False)
        handle.write("\n")
        handle.flush()
        os.fsync(handle.fileno())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        StoreError: the file is missing or not a JSON object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(data, dict):
        raise StoreError(f"{path}: not a JSON object")
    return data


def sha256_of_directory(directory: Path) -> str:
    """SHA-256 over the names and bytes of all files below a directory, in hexadecimal."""
    total = hashlib.sha256()
    for file in sorted(path for path in directory.rglob("*") if path.is_file()):
        total.update(file.relative_to(directory).as_posix().encode() + b"\0")
        with file.open("rb") as handle:
            total.update(hashlib.file_digest(handle, "sha256").digest())
    return total.hexdigest()


def _file_sizes(directory: Path) -> dict[str, int]:
    # a process that is killed while it writes the record leaves the second in a partial directory
    not_content = (ARTIFACT_FILE, f".{ARTIFACT_FILE}.tmp")
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {
        file.relative_to(directory).as_posix(): file.stat().st_size
        for file in files
        if file.name not in not_content and file.relative_to(directory).parts[0] != EVENTS
    }
