"""Fixtures of the predict tests: the tiny bundles of the serving tests."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[1] / "serving"))


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Builds a bundle of the test's own; takes the arguments of write_tiny_bundle."""
    from helpers.tiny_bundle import write_tiny_bundle

    def make(name: str = "bundle", **arguments: Any) -> Path:
        write_tiny_bundle(tmp_path / name, **arguments)
        return tmp_path / name

    return make
