"""The commented recipe that `factory init` writes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from factory.errors import FactoryError
from factory.recipe.task import TASK_TRAITS

if TYPE_CHECKING:
    from factory.scaffold.defaults import Choices
    from serving.bundle import Task

TEMPLATE = """\
# One recipe in, one gated ONNX bundle out:   factory run {file}
# Check it first with `factory validate {file}`; `factory validate --schema` lists every key.
name = {name}

[data]
# delimited text, JSON Lines or Parquet, gzip too; relative to this file
train = {train}
{dev}
{test}text = {text}   # one column, or two for sentence pairs
label = {label}
{task}{quoting}{duplicates}max_length = {max_length}   # tokens; longer inputs are cut

[teacher]
# hub id, local folder, or package:NAME
model = {teacher}
fine_tune = true       # false: the model is already fine-tuned on these labels
epochs = {teacher_epochs}
{teacher_batch}learning_rate = {teacher_rate}   # small teachers want more: 1e-4 to 2e-4
{balanced}
[student]              # 14.35M parameters at this shape
layers = 4
hidden = 312
start = "teacher"      # "random", or a checkpoint such as huawei-noah/TinyBERT_General_4L_312D

[distill]
layer_map = "uniform"  # "top", "bottom", or a list such as [3, 6, 9, 12]
baseline = "off"       # "random": also train the same student without distillation
{phases}
[gate]                 # a rule that fails stops the run with exit code 3
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
    "label_separator = {separator}  # between the names in a csv or tsv cell\n",
}
AGREEMENT_LINE = "min_agreement = {share}   # of the labels, with those of the fp32 form\n"
PHASES = """batch_size = {batch_size}

[distill.intermediate] # embeddings, hidden states, attention
epochs = {intermediate}

[distill.prediction]   # the teacher's logits
epochs = {prediction}
learning_rate = 5e-5
"""
USUAL_LENGTH = 128
USUAL_AGREEMENT = 0.98


def write_template(
    path: Path,
    *,
    train: str,
    dev: str | None,
    text_columns: Sequence[str],
    label: str,
    task: Task = "classification",
    teacher: str,
    test: str | None = None,
    separator: str = ",",
    quoting: str | None = None,
    allow_duplicates: bool = False,
    choices: Choices | None = None,
) -> None:
    """Write a recipe that is valid as it stands; an existing file is never overwritten.

    Args:
        choices: settings that suit the data; None writes those that suit most.

    Raises:
        FactoryError: the file exists.
    """
    columns = text_columns[0] if len(text_columns) == 1 else list(text_columns)
    fraction = 0.1 if choices is None or choices.dev_fraction is None else choices.dev_fraction
    dev_line = (
        f"dev_fraction = {fraction}   # held out of train; or: dev = a file"
        if dev is None
        else f"dev = {_toml(dev)}"
    )
    text = TEMPLATE.format(
        file=path.name,
        name=_toml(_recipe_name(path)),
        train=_toml(train),
        dev=dev_line,
        test="" if test is None else f"test = {_toml(test)}   # only reported, once\n",
        text=_toml(columns),
        label=_toml(label),
        task=TASK_LINES[task].format(separator=_toml(separator)),
        quoting="" if quoting is None else f"quoting = {_toml(quoting)}   # marks in the file\n",
        duplicates="allow_duplicates = true\n" if allow_duplicates else "",
        teacher=_toml(teacher),
        teacher_rate="2e-4" if teacher.startswith("package:") else "5e-5",
        **_chosen(task, choices),
    )
    try:
        with path.open("x", encoding="utf-8") as handle:
            handle.write(text)
    except FileExistsError as error:
        raise FactoryError(f"{path}: exists already; give another path or remove it") from error


def _chosen(task: Task, choices: Choices | None) -> dict[str, object]:
    """The template's fields that depend on how much data there is."""
    if choices is None:
        agreement = (
            AGREEMENT_LINE.format(share=USUAL_AGREEMENT) if TASK_TRAITS[task].has_labels else ""
        )
        return {
            "max_length": USUAL_LENGTH, "teacher_epochs": 3.0, "teacher_batch": "", "balanced": "",
            "phases": "", "metric": "", "min_retention": 0.968, "max_quantization_drop": 0.01,
            "agreement": agreement,
        }  # fmt: skip
    balanced = 'class_weights = "balanced"   # a rare class counts as much as a frequent one\n'
    phases = PHASES.format(
        batch_size=choices.batch_size,
        intermediate=float(choices.intermediate_epochs),
        prediction=float(choices.prediction_epochs),
    )
    share = choices.min_agreement
    return {
        "max_length": choices.max_length,
        "teacher_epochs": float(choices.teacher_epochs),
        "teacher_batch": f"batch_size = {choices.batch_size}\n",
        "balanced": balanced if choices.balanced else "",
        "phases": phases,
        "metric": "" if choices.metric is None else f"metric = {_toml(choices.metric)}\n",
        "min_retention": choices.min_retention,
        "max_quantization_drop": choices.max_quantization_drop,
        "agreement": "" if share is None else AGREEMENT_LINE.format(share=share),
    }


def _toml(value: str | list[str]) -> str:
    """A string or a list of strings as TOML: JSON's form, but for the one escape TOML lacks."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _recipe_name(path: Path) -> str:
    """The file's name with what a recipe's name may not hold replaced."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("._-")
    return name or "recipe"
