"""Find the rows that two bundles are compared on: a file, or the data of their runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory.data.dataset import Split, labels_of_rows, read_dataset
from factory.data.load import load_split
from factory.errors import ComparisonError
from factory.runtime.progress import say
from factory.store import directory_name
from serving.bundle import MANIFEST_NAME, Manifest, read_manifest


@dataclass(frozen=True, slots=True)
class DataFile:
    """A labelled file and its columns; the default is the columns of the new bundle's recipe."""

    path: Path
    text_columns: tuple[str, ...] = ()
    label: str | None = None
    label_separator: str | None = None


def find_bundle(path: Path) -> Path:
    """The bundle at a path: the path itself, or the newest bundle of a store.

    Raises:
        ComparisonError: the path is neither a bundle nor a store with one.
    """
    if (path / MANIFEST_NAME).is_file():
        return path
    bundles = [file.parent for file in path.glob(f"bundle-*/{MANIFEST_NAME}")]
    finished = [bundle for bundle in bundles if not bundle.name.endswith(".partial")]
    if not finished:
        raise ComparisonError(
            f"{path}: neither a bundle (no {MANIFEST_NAME}) nor a store with finished bundles; "
            "give the directory that `factory run` printed"
        )
    return max(finished, key=lambda bundle: (bundle / MANIFEST_NAME).stat().st_mtime)


def rows_of_file(
    file: DataFile, manifest: Manifest, labels: Sequence[str]
) -> tuple[Split, tuple[str, ...]]:
    """Every row of a file, and the labels.

    Raises:
        DataError: the file has problems, or labels that neither bundle has.
    """
    recipe = manifest.recipe.get("data", {})
    text = recipe.get("text", "text")
    columns = list(file.text_columns) or ([text] if isinstance(text, str) else list(text))
    label = file.label or recipe.get("label", "label")
    separator = file.label_separator or recipe.get("label_separator", ",")
    quoting = recipe.get("quoting")
    split = load_split(file.path, columns, label, separator, manifest.task, labels, quoting)
    return split, tuple(labels)


def rows_of_runs(old: Path, new: Path, split_name: str | None) -> tuple[Split, tuple[str, ...]]:
    """The split that both runs were evaluated on, from the data stages beside the bundles.

    Args:
        split_name: dev or test; None: the split of the new bundle's gate.

    Raises:
        ComparisonError: no data stage beside either bundle, no such split, or different rows.
    """
    name = split_name or str(read_manifest(new).recipe.get("gate", {}).get("split", "dev"))
    made = {bundle: read_manifest(bundle).lineage.get("data") for bundle in (old, new)}
    found: dict[Path, tuple[Split, tuple[str, ...]]] = {}
    for bundle, fingerprint in made.items():
        stage = bundle.resolve().parent / directory_name("data", fingerprint or "")
        if fingerprint is None or not stage.is_dir():
            continue
        dataset = read_dataset(stage)
        splits = {split.name: split for split in dataset.splits()}
        if name not in splits:
            raise ComparisonError(
                f"{bundle}: the data has no split {name}, only {', '.join(splits)}"
            )
        found[bundle] = splits[name], dataset.labels
    if not found:
        raise ComparisonError(
            f"{old}, {new}: no store around either bundle has the rows they were evaluated on; "
            "give labelled rows with --data FILE"
        )
    prints = {bundle: rows_fingerprint(*rows) for bundle, rows in found.items()}
    if len(set(prints.values())) > 1:
        lines = [
            f"{bundle}: {len(found[bundle][0])} rows, fingerprint {sha256[:12]}"
            for bundle, sha256 in prints.items()
        ]
        raise ComparisonError(
            f"the two runs have different rows in {name} ({'; '.join(lines)}); give rows that "
            "neither was trained on with --data FILE"
        )
    for bundle in (old, new):
        if bundle not in found and made[old] != made[new]:
            say(
                f"{bundle}: its data stage was not found, so it may have been trained on these "
                f"rows of {name}"
            )
    return found.get(new) or found[old]


def rows_fingerprint(split: Split, labels: Sequence[str]) -> str:
    """SHA-256 over texts and label names of every row, in order."""
    targets: list[Any] = list(split.targets)
    if not isinstance(split.targets[0], float):
        targets = [sorted(labels[index] for index in row) for row in labels_of_rows(split)]
    text = json.dumps([split.texts, split.text_pairs, targets], ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
