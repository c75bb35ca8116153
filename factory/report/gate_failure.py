"""What gate 2 measured of forms it refused, kept so that the run's page can say why."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from factory.evaluation.gate import RuleResult
from factory.store import ArtifactKey, Store, directory_name, read_json, write_json

REFUSAL_FILE = "refusal.json"


def report_folder(store: Store, bundle: ArtifactKey) -> Path:
    """Where the page of the run that makes `bundle` stands."""
    return store.root / directory_name("report", bundle.fingerprint)


def note_refusal(
    directory: Path,
    scores: Mapping[str, Any],
    measurements: Mapping[str, Any],
    verdicts: Mapping[Any, Sequence[RuleResult]],
) -> None:
    """Write what was measured into the stage's working directory when no form passes."""
    if any(all(rule.passed for rule in rules) for rules in verdicts.values()):
        return
    refusal = {
        "scores": scores,
        "measurements": measurements,
        "rules": {form: [rule.to_facts() for rule in rules] for form, rules in verdicts.items()},
    }
    write_json(directory / REFUSAL_FILE, refusal)


def keep_refusal(store: Store, bundle: ArtifactKey) -> None:
    """Move it to where the page will stand, before the working directory is discarded."""
    noted = store.partial(bundle) / REFUSAL_FILE
    if noted.is_file():
        folder = report_folder(store, bundle)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.move(noted, folder / REFUSAL_FILE)


def read_refusal(store: Store, bundle: ArtifactKey) -> dict[str, Any] | None:
    """What was kept of the run's last refusal by gate 2, if there was one."""
    noted = report_folder(store, bundle) / REFUSAL_FILE
    return read_json(noted) if noted.is_file() else None
