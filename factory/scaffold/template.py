"""The commented recipe that `factory init` writes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from factory.errors import FactoryError
from factory.recipe.data import DataSettings
from factory.scaffold.defaults import Choices
from serving.bundle import Task

TEMPLATE = """\
# One recipe in, one gated ONNX bundle out:   factory run {file}
# Check it first with `factory validate {file}`; `factory validate --schema` lists every key.
name = {name}

[data]
# delimited text, JSON Lines or Parquet, also gzipped; relative to this file
train = {train}
{dev}
{test}text = {text}   # one column, or two for sentence pairs
label = {label}
{task}{quoting}{duplicates}max_length = {max_length}   # tokens; longer inputs are truncated

[teacher]
# hub id, local folder, or package:NAME
model = {teacher}
fine_tune = true       # false: the model is already fine-tuned on these labels
epochs = {teacher_epochs}
batch_size = {batch_size}
learning_rate = {teacher_rate}   # small teachers need more: 1e-4 to 2e-4
{balanced}
[student]              # 14.35M parameters at this shape
layers = 4
hidden = 312
start = "teacher"      # "random", or a checkpoint such as huawei-noah/TinyBERT_General_4L_312D

[distill]
layer_map = "uniform"  # "top", "bottom", or a list such as [3, 6, 9, 12]
baseline = "off"       # "random": also train the same student without distillation
batch_size = {batch_size}

[distill.intermediate] # embeddings, hidden states, attention
epochs = {intermediate_epochs}

[distill.prediction]   # the teacher's logits
epochs = {prediction_epochs}
learning_rate = 5e-5

[gate]                 # a failed rule stops the run with exit code 3
{metric}min_retention = {min_retention}  # of the teacher's metric
max_quantization_drop = {max_quantization_drop}

{agreement}
[quantize]
forms = "auto"         # the fastest form that passes the second gate is served
"""

TASK_LINES: Mapping[Task, str] = {
    "classification": "",
    "regression": 'task = "regression"    # the label column holds numbers\n',
    "multilabel": 'task = "multilabel"    # any number of labels per text\n'
    "label_separator = {separator}  # between the labels in a csv or tsv cell\n",
}


def write_template(path: Path, data: DataSettings, teacher: str, choices: Choices) -> None:
    """Write a valid recipe; an existing file is never overwritten.

    Args:
        data: written except for keys that `init` does not set.
        choices: settings of the other tables.

    Raises:
        FactoryError: the file exists.
    """
    columns = data.text_columns
    dev = f"dev_fraction = {data.dev_fraction}   # held out of train; or: dev = a file"
    balanced = 'class_weights = "balanced"   # a rare class has the same weight as a frequent one\n'
    agreement = f"min_agreement = {choices.min_agreement}   # labels equal to those of fp32\n"
    text = TEMPLATE.format(
        file=path.name,
        # characters that are invalid in a recipe's name are replaced
        name=_toml(re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("._-") or "recipe"),
        train=_toml(str(data.train)),
        dev=dev if data.dev is None else f"dev = {_toml(data.dev)}",
        test="" if data.test is None else f"test = {_toml(data.test)}   # not used for selection\n",
        text=_toml(columns[0] if len(columns) == 1 else columns),
        label=_toml(data.label),
        task=TASK_LINES[data.task].format(separator=_toml(data.label_separator)),
        quoting="" if data.quoting is None else f"quoting = {_toml(data.quoting)}\n",
        duplicates="allow_duplicates = true\n" if data.allow_duplicates else "",
        max_length=data.max_length,
        teacher=_toml(teacher),
        teacher_epochs=float(choices.teacher_epochs),
        teacher_rate="2e-4" if teacher.startswith("package:") else "5e-5",
        batch_size=choices.batch_size,
        balanced=balanced if choices.balanced else "",
        intermediate_epochs=float(choices.intermediate_epochs),
        prediction_epochs=float(choices.prediction_epochs),
        metric="" if choices.metric is None else f"metric = {_toml(choices.metric)}\n",
        min_retention=choices.min_retention,
        max_quantization_drop=choices.max_quantization_drop,
        agreement=agreement if data.traits.has_labels else "",
    )
    try:
        with path.open("x", encoding="utf-8") as handle:
            handle.write(text)
    except FileExistsError as error:
        raise FactoryError(f"{path}: exists already; give another path or remove it") from error


def _toml(value: str | Sequence[str]) -> str:
    """A string or strings as TOML: JSON, except for the one escape TOML lacks."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
