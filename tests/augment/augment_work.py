"""Augmentation of tiny rows in processes of their own, which may be killed in the middle."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from tiny_masked import listed, settings_with, tiny_mlm
from tiny_models import tiny_split, tiny_tokenizer

from factory.augment import masked_lm, merging, parts
from factory.augment.stage import augment
from factory.augment.tools import AugmentTools
from factory.data.dataset import Split
from factory.recipe.augment import AugmentSettings
from factory.runtime import distributed as processes

ROWS = 100
PARTS = 7


def rows() -> Split:
    """Texts, some of them twice."""
    train = tiny_split("train", ROWS, seed=5)
    return Split("train", [*train.texts[:80], *train.texts[:20]], None, train.targets)


def recipe(mode: str) -> AugmentSettings:
    """Two sources, and everything that the merge does."""
    return settings_with(mode=mode, sources=["mlm", "embeddings"], copies=4, max_rows_per_class=120)


def make_smaller() -> None:
    """Parts and shards of few rows, so that there are several."""
    parts.PART_ROWS = 16
    merging.SHARD_ROWS = 100


def work(directory: str, mode: str, batch_tokens: str, kill_at: str) -> None:
    """Augment; SIGKILL in the middle of writing the file number `kill_at`, counted from 1."""
    make_smaller()
    masked_lm.CPU_BATCH_TOKENS = int(batch_tokens)
    _kill_while_writing(int(kill_at))
    here = Path(directory)
    here.mkdir(exist_ok=True)
    with processes.process_group("cpu"):
        neighbours = {"embeddings": listed(lamp=["light"])}
        facts = augment(
            here,
            rows(),
            recipe(mode),
            AugmentTools(tiny_tokenizer(), 24, tiny_mlm(), neighbours),
        )
        print(facts)  # noqa: T201


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
