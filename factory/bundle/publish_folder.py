"""A bundle to a folder that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from factory.bundle.publish_target import check_bundle, published_files
from factory.errors import PublishError
from serving.bundle import verify_files


def publish_to_folder(bundle: Path, folder: Path, *, update: bool = False) -> Path:
    """Copy a checked bundle; the copy is checked too before it gets its name.

    Args:
        update: replace what is there.

    Raises:
        PublishError: the folder is there and not empty; or the bundle did not pass its gate.
        BundleError: the bundle, or its copy, is broken.
    """
    manifest = check_bundle(bundle)
    folder = Path(os.path.abspath(folder.expanduser()))  # noqa: PTH100 - a link stays a link
    there = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if there and not (update and folder.is_dir()):
        raise PublishError(
            f"{folder}: is there already; give another folder, or --update to replace it"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for name in published_files(manifest):
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle / name, partial / name)
        verify_files(partial, manifest)
        _swap(partial, folder, there=there)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _swap(partial: Path, folder: Path, *, there: bool) -> None:
    """Two renames with what was there between them; a new folder takes one."""
    if not there:
        partial.rename(folder)
        return
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
