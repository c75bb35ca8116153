"""Fixtures that the distillation and teacher tests share: tiny data, tiny models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Read when torch loads its OpenMP: threads that wait by spinning make tiny models some 30 times
# slower on a machine whose cores are busy with something else.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

if TYPE_CHECKING:  # torch is imported only by tests that use a model
    from factory.classifier import TorchClassifier
    from factory.data.dataset import Dataset


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """A learnable data set of three classes."""
    from tiny_models import tiny_dataset

    return tiny_dataset()


@pytest.fixture(scope="session")
def trained_folder(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Path:
    """A folder with a tiny BERT that has learned `dataset`; no test may change it."""
    from tiny_models import save_trained

    return save_trained(tmp_path_factory.mktemp("models") / "trained", dataset)


@pytest.fixture
def teacher(trained_folder: Path) -> TorchClassifier:
    """The learned tiny BERT, opened anew for every test."""
    from tiny_models import open_tiny

    return open_tiny(trained_folder)
