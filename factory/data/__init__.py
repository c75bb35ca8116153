"""Data: files or a hub data set become checked train, dev and test splits."""

from __future__ import annotations

from factory.data.checks import check_batch
from factory.data.dataset import Dataset, Split, read_dataset, write_dataset
from factory.data.source import source_identity
from factory.data.stage import load_dataset

__all__ = [
    "Dataset",
    "Split",
    "check_batch",
    "load_dataset",
    "read_dataset",
    "source_identity",
    "write_dataset",
]
