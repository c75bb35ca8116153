"""Where a bundle goes, and what of it: the checks that come before anything is published."""

from __future__ import annotations

import re
from pathlib import Path

from factory.errors import PublishError
from serving.bundle import MANIFEST_NAME, Manifest
from serving.predictor import Predictor

REPOSITORY = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")


def repository_name(target: str) -> str | None:
    """The hub repository that a target names, or None for a folder.

    `owner/name` is a repository; a path that starts with `.`, `/` or `~`, or has no slash or more
    than one, is a folder.

    Raises:
        PublishError: `owner/name` where a folder `owner` exists: either could be meant.
    """
    if not REPOSITORY.match(target):
        return None
    if Path(target).parent.is_dir():
        raise PublishError(
            f"{target}: a folder below {Path(target).parent}, or a repository of that owner? Write "
            f"./{target} for the folder; for the repository, run from another directory"
        )
    return target


def check_bundle(bundle: Path) -> Manifest:
    """Open a bundle as the server would, and see that its gate let it pass.

    Raises:
        BundleError: a file is missing or changed, or the model does not answer.
        PublishError: no gate, or one that failed.
    """
    manifest = Predictor.open(bundle).manifest
    failed = [str(rule["text"]) for rule in manifest.gate if not rule["passed"]]
    if failed:
        raise PublishError(
            f"{bundle}: its gate failed ({'; '.join(failed)}); publish a bundle that passed"
        )
    if not manifest.gate:
        raise PublishError(
            f"{bundle}: no gate judged it; publish the directory that `factory run` printed"
        )
    return manifest


def published_files(manifest: Manifest) -> list[str]:
    """Every file that goes out: those the manifest vouches for, and the manifest."""
    return [*manifest.files, MANIFEST_NAME]
