"""The finished stages behind a run, found in its store by their fingerprints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory.store import ARTIFACT_FILE, read_json


@dataclass(frozen=True, slots=True)
class StageFiles:
    """One finished stage: its name, or that of the model it made; its directory; its record."""

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
        inputs: fingerprint by stage, as in the record of the stage that took them.
    """
    records = _find_records(store, inputs)
    pruned = any(record["stage"] == "prune" for record in records.values())
    roles = {"distill": "unpruned" if pruned else "student", "prune": "student"}
    return [
        StageFiles(roles.get(record["stage"], record["stage"]), directory, record)
        for directory, record in records.items()
    ]


def _find_records(store: Path, inputs: Mapping[str, str]) -> dict[Path, Mapping[str, Any]]:
    found: dict[Path, Mapping[str, Any]] = {}
    for fingerprint in inputs.values():
        directory = _published(store, fingerprint)
        if directory is None or directory in found:
            continue
        record = read_json(directory / ARTIFACT_FILE)
        if record.get("fingerprint") == fingerprint:
            found = {**_find_records(store, record["inputs"]), **found, directory: record}
    return found


def stage_of(stages: list[StageFiles], role: str) -> StageFiles | None:
    """The stage with a role, when it is there."""
    return next((stage for stage in stages if stage.role == role), None)


def _published(store: Path, fingerprint: str) -> Path | None:
    for directory in sorted(store.glob(f"*-{fingerprint[:12]}")):
        if (directory / ARTIFACT_FILE).is_file():
            return directory
    return None
