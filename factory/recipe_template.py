"""The commented recipe that `factory init` writes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from factory.errors import FactoryError

if TYPE_CHECKING:
    from factory.data.dataset import Task

TEMPLATE = """\
# One recipe in, one gated ONNX bundle out:   factory run {file}
# Check it first with `factory validate {file}`; `factory validate --schema` lists every key.
name = {name}

[data]
# csv, tsv, jsonl or parquet, .gz too; relative to this file
train = {train}
{dev}
text = {text}   # one column, or two for sentence pairs
label = {label}
{task}max_length = 128   # tokens; longer inputs are cut

[teacher]
# hub id, local folder, or package:NAME
model = {teacher}
fine_tune = true       # false: the model is already fine-tuned on these labels
epochs = 3.0
learning_rate = 5e-5   # small teachers want more: 1e-4 to 2e-4

[student]              # 14.35M parameters at this shape
layers = 4
hidden = 312
start = "teacher"      # "random", or a checkpoint such as huawei-noah/TinyBERT_General_4L_312D

[distill]
layer_map = "uniform"  # "top", "bottom", or a list such as [3, 6, 9, 12]
baseline = "off"       # "random": also train the same student without distillation

[gate]                 # a rule that fails stops the run with exit code 3
min_retention = 0.968  # of the teacher's metric
max_quantization_drop = 0.01

{agreement}
[quantize]
variants = "auto"      # the fastest form that passes the second gate is served
"""


TASK_LINES: Mapping[Task, str] = {
    "classification": "",
    "regression": 'task = "regression"    # the label column holds numbers\n',
    "multilabel": 'task = "multilabel"    # any number of labels per text\n'
    'label_separator = ","  # between the names in a csv or tsv cell\n',
}
AGREEMENT_LINE = "min_agreement = 0.98   # of the labels, with those of the fp32 form\n"


def write_template(
    path: Path,
    *,
    train: str,
    dev: str | None,
    text_columns: Sequence[str],
    label: str,
    task: Task = "classification",
    teacher: str,
) -> None:
    """Write a recipe that is valid as it stands; an existing file is never overwritten.

    Raises:
        FactoryError: the file exists.
    """
    columns = text_columns[0] if len(text_columns) == 1 else list(text_columns)
    dev_line = (
        "dev_fraction = 0.1   # held out of train; or: dev = a file"
        if dev is None
        else f"dev = {_toml(dev)}"
    )
    text = TEMPLATE.format(
        file=path.name,
        name=_toml(_recipe_name(path)),
        train=_toml(train),
        dev=dev_line,
        text=_toml(columns),
        label=_toml(label),
        task=TASK_LINES[task],
        agreement="" if task == "regression" else AGREEMENT_LINE,
        teacher=_toml(teacher),
    )
    try:
        with path.open("x", encoding="utf-8") as handle:
            handle.write(text)
    except FileExistsError as error:
        raise FactoryError(f"{path}: exists already; give another path or remove it") from error


def _toml(value: str | list[str]) -> str:
    """A string or a list of strings as TOML: JSON's form, but for the one escape TOML lacks."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _recipe_name(path: Path) -> str:
    """The file's name with what a recipe's name may not hold replaced."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("._-")
    return name or "recipe"
