"""The finished stages behind a run, found in its store by their fingerprints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory.store import ARTIFACT_FILE, read_json


@dataclass(frozen=True, slots=True)
class StageFiles:
    """One finished stage: what the run calls it, where it stands, what it recorded."""

    role: str
    directory: Path
    record: Mapping[str, Any]

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the stage found out."""
        facts: Mapping[str, Any] = self.record["facts"]
        return facts


def find_stages(store: Path, inputs: Mapping[str, str]) -> list[StageFiles]:
    """The stages with these fingerprints and all that they were made from, the first made first.

    What is no longer in the store is left out: a bundle may have been copied away from it.

    Args:
        inputs: fingerprint by role, as in the record of the stage that took them.
    """
    found: dict[str, StageFiles] = {}
    for role, fingerprint in inputs.items():
        directory = _published(store, fingerprint)
        if directory is None:
            continue
        record = read_json(directory / ARTIFACT_FILE)
        if record.get("fingerprint") != fingerprint:
            continue
        for before in find_stages(store, record["inputs"]):
            found.setdefault(str(before.directory), before)
        # the nearest name wins: a pruned student's "distilled" is the bundle's "unpruned"
        found[str(directory)] = StageFiles(role, directory, record)
    return list(found.values())


def stage_of(stages: list[StageFiles], role: str) -> StageFiles | None:
    """The stage with a role, when it is there."""
    return next((stage for stage in stages if stage.role == role), None)


def _published(store: Path, fingerprint: str) -> Path | None:
    for directory in sorted(store.glob(f"*-{fingerprint[:12]}")):
        if (directory / ARTIFACT_FILE).is_file():
            return directory
    return None
