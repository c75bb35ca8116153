"""A local folder laid out as the hub lays out GLUE: a card, and a parquet file per split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Rows = Sequence[tuple[Any, ...]]

# columns and class names of each config, as the hub's dataset card declares them
COLUMNS = {
    "cola": ("sentence",),
    "sst2": ("sentence",),
    "mrpc": ("sentence1", "sentence2"),
    "stsb": ("sentence1", "sentence2"),
    "qqp": ("question1", "question2"),
    "mnli": ("premise", "hypothesis"),
    "qnli": ("question", "sentence"),
    "rte": ("sentence1", "sentence2"),
}
CLASSES = {
    "cola": ("unacceptable", "acceptable"),
    "sst2": ("negative", "positive"),
    "mrpc": ("not_equivalent", "equivalent"),
    "stsb": (),
    "qqp": ("not_duplicate", "duplicate"),
    "mnli": ("entailment", "neutral", "contradiction"),
    "qnli": ("entailment", "not_entailment"),
    "rte": ("entailment", "not_entailment"),
}


def write_card(folder: Path, configs: Mapping[str, Sequence[str]]) -> None:
    """README.md with the features and the files of each config."""
    lines = ["---", "dataset_info:"]
    for config in configs:
        lines += [f"- config_name: {config}", "  features:"]
        for name in COLUMNS[config]:
            lines += [f"  - name: {name}", "    dtype: string"]
        lines.append("  - name: label")
        if CLASSES[config]:
            names = [f"          '{i}': {name}" for i, name in enumerate(CLASSES[config])]
            lines += ["    dtype:", "      class_label:", "        names:", *names]
        else:
            lines.append("    dtype: float32")
        lines += ["  - name: idx", "    dtype: int32"]
    lines.append("configs:")
    for config, splits in configs.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        for split in splits:
            lines += [f"  - split: {split}", f"    path: {config}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*lines, "---", "", "# GLUE", ""]))


def write_glue(folder: Path, configs: Mapping[str, Mapping[str, Rows]]) -> Path:
    """One parquet file per config and split; a row is its texts and its label."""
    folder.mkdir(parents=True, exist_ok=True)
    write_card(folder, {config: list(splits) for config, splits in configs.items()})
    for config, splits in configs.items():
        (folder / config).mkdir()
        kind = pa.int64() if CLASSES[config] else pa.float32()
        for split, rows in splits.items():
            *texts, labels = zip(*rows, strict=True)
            columns = {
                name: pa.array(column) for name, column in zip(COLUMNS[config], texts, strict=True)
            }
            columns["label"] = pa.array(labels, kind)
            columns["idx"] = pa.array(range(len(rows)), pa.int32())
            pq.write_table(pa.table(columns), folder / config / f"{split}-00000-of-00001.parquet")
    return folder
