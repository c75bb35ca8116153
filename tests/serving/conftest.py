"""Fixtures of the serving tests: tiny real bundles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_bundle import write_tiny_bundle

from serving.predictor import Predictor


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classification bundle that every test may read and none may change."""
    directory = tmp_path_factory.mktemp("bundles") / "tiny"
    write_tiny_bundle(directory)
    return directory


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Builds a bundle of the test's own; takes the arguments of write_tiny_bundle."""

    def make(name: str = "own", **arguments: Any) -> Path:
        write_tiny_bundle(tmp_path / name, **arguments)
        return tmp_path / name

    return make


@pytest.fixture
def predictor(bundle: Path) -> Predictor:
    """The classification bundle, opened."""
    return Predictor.open(bundle)
