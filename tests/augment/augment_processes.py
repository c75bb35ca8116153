"""Augmentation of tiny rows in processes that may be killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from helpers.tiny_models import tiny_split
from tiny_masked import listed, proposers_with, settings_with, tiny_mlm

from factory.augment import shards
from factory.augment.run import augment
from factory.data.dataset import Split
from factory.recipe.augment import AugmentSettings
from factory.runtime import distributed

ROWS = 100
PARTS = 7
# Few rows, so that there are several parts and shards.
PART_ROWS, SHARD_ROWS = 16, 100


def rows() -> Split:
    """Texts, some of them repeated."""
    train = tiny_split("train", ROWS, seed=5)
    return Split("train", [*train.texts[:80], *train.texts[:20]], None, train.targets)


def recipe(mode: str) -> AugmentSettings:
    """Two sources, duplicates and a limit per class."""
    return settings_with(mode=mode, sources=["mlm", "embeddings"], copies=4, max_rows_per_class=120)


def augment_rows(directory: Path, mode: str) -> dict[str, Any]:
    """The whole stage."""
    proposers = proposers_with(tiny_mlm(), embeddings=listed(lamp=["light"]))
    return augment(directory, rows(), recipe(mode), proposers)


def work(directory: str, kill_at: str) -> None:
    """Augment; SIGKILL in the middle of writing file number `kill_at`, counted from 1."""
    shards.PART_ROWS, shards.SHARD_ROWS = PART_ROWS, SHARD_ROWS
    _kill_while_writing(int(kill_at))
    output = Path(directory)
    output.mkdir(exist_ok=True)
    with distributed.process_group("cpu"):
        augment_rows(output, "corrected")


def _kill_while_writing(kill_at: int) -> None:
    import pyarrow.parquet

    original = pyarrow.parquet.write_table
    written = 0

    def write_table(table: Any, where: Path, **options: Any) -> None:
        nonlocal written
        written += 1
        if written == kill_at:
            where.write_bytes(b"PAR1 half a file")
            os.kill(os.getpid(), signal.SIGKILL)
        original(table, where, **options)

    pyarrow.parquet.write_table = write_table
