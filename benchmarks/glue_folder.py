"""Local GLUE files to a folder in the hub's layout, which the GLUE recipes read unchanged."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

# columns and class names as the hub's data set declares them; no classes: a number
LOCAL_TASKS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "sst2": (("sentence",), ("negative", "positive")),
    "mrpc": (("sentence1", "sentence2"), ("not_equivalent", "equivalent")),
    "stsb": (("sentence1", "sentence2"), ()),
}
SPLITS = {"train": "train", "validation": "dev"}


def write_glue_folder(source: Path, task: str, target: Path) -> Path:
    """Write `task` as the hub has it: a card with features, and one parquet file per split.

    Args:
        source: train.tsv and dev.tsv (.gz too) with the columns text, text_pair for pairs, label;
            labels.txt with the class names in the hub's order, whatever they are called.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns, classes = LOCAL_TASKS[task]
    names = (source / "labels.txt").read_text().split() if classes else []
    (target / task).mkdir(parents=True, exist_ok=True)
    for split, name in SPLITS.items():
        rows = _rows(source, name)
        texts = zip(*(row[:-1] for row in rows), strict=True)
        table = {key: pa.array(column) for key, column in zip(columns, texts, strict=True)}
        labels = [row[-1] for row in rows]
        if classes:
            table["label"] = pa.array([names.index(label) for label in labels], pa.int64())
        else:
            table["label"] = pa.array([float(label) for label in labels], pa.float32())
        table["idx"] = pa.array(range(len(rows)), pa.int32())
        pq.write_table(pa.table(table), target / task / f"{split}-00000-of-00001.parquet")
    (target / "README.md").write_text(_card(task, columns, classes))
    return target


def _rows(source: Path, name: str) -> list[list[str]]:
    """The fields of every row but the header's; a quote is an ordinary character."""
    plain = source / f"{name}.tsv"
    if plain.is_file():
        text = plain.read_text(encoding="utf-8")
    else:
        text = gzip.decompress((source / f"{name}.tsv.gz").read_bytes()).decode("utf-8")
    return [line.split("\t") for line in text.split("\n")[1:] if line]


def _card(task: str, columns: Sequence[str], classes: Sequence[str]) -> str:
    kind = ["    dtype: float32"]
    if classes:
        kind = ["    dtype:", "      class_label:", "        names:"]
        kind += [f"          '{number}': {name}" for number, name in enumerate(classes)]
    lines = ["---", "dataset_info:", f"- config_name: {task}", "  features:"]
    for name in columns:
        lines += [f"  - name: {name}", "    dtype: string"]
    lines += ["  - name: label", *kind, "  - name: idx", "    dtype: int32"]
    lines += ["configs:", f"- config_name: {task}", "  data_files:"]
    for split in SPLITS:
        lines += [f"  - split: {split}", f"    path: {task}/{split}-*"]
    return "\n".join([*lines, "---", ""])
