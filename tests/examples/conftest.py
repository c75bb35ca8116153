"""The bundles every example is run on, made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from edge_bundles import Edge, export_edge_student, write_edge_bundle
from tiny_models import LABELS


@pytest.fixture(scope="session")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Edge]:
    """A bundle by its kind: single, pair, multilabel or regression; no test may change it."""
    directory = tmp_path_factory.mktemp("edge")
    students: dict[tuple[str, ...], tuple[Path, Path]] = {}
    made: dict[str, Edge] = {}

    def bundle(kind: str) -> Edge:
        labels = ("value",) if kind == "regression" else LABELS
        if labels not in students:
            students[labels] = export_edge_student(directory / str(len(labels)), labels)
        if kind not in made:
            student, exported = students[labels]
            made[kind] = write_edge_bundle(directory / kind, kind, exported, student)
        return made[kind]

    return bundle
