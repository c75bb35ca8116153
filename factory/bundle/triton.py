"""A model of a Triton model repository: the configuration that belongs to an ONNX file."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from factory.errors import PackageError

TritonDevice = Literal["cpu", "gpu", "auto"]
CONFIGURATION_FILE = "config.pbtxt"
LABELS_FILE = "labels.txt"
MODEL_FILE = "model.onnx"
VERSION_DIRECTORY = "1"
# Rows of one run at most.
MAX_BATCH = 32
_KINDS = {"cpu": "KIND_CPU", "gpu": "KIND_GPU", "auto": "KIND_AUTO"}
_TYPES = {
    "tensor(int64)": "TYPE_INT64",
    "tensor(int32)": "TYPE_INT32",
    "tensor(float)": "TYPE_FP32",
    "tensor(float16)": "TYPE_FP16",
    "tensor(bool)": "TYPE_BOOL",
    "tensor(string)": "TYPE_STRING",
}


@dataclass(frozen=True, slots=True)
class TritonMachine:
    """What Triton runs a model on, and how many copies of it at a time.

    "auto" is a GPU where Triton has one that its onnxruntime can use, else the processor.
    """

    device: TritonDevice = "cpu"
    instances: int = 1


def repository_name(name: str) -> str:
    """A bundle's name as the name of a model's directory, which Triton's addresses contain."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def write_model_configuration(
    directory: Path, machine: TritonMachine, max_batch: int, labels: Sequence[str]
) -> None:
    """Write config.pbtxt for the file in the model's first version, from that file's own graph.

    The format is the text form of `inference.ModelConfig` (triton-inference-server/common,
    protobuf/model_config.proto).

    Args:
        directory: the model's, which has the model's name.
        max_batch: rows of one run; with 1, requests are not put together.
        labels: names of the columns of a single float output, for Triton's classification
            extension; none: no file of names.

    Raises:
        PackageError: a tensor that Triton's onnxruntime backend cannot take.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    path = directory / VERSION_DIRECTORY / MODEL_FILE
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    blocks = [
        f"name: {_text(directory.name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {max_batch}",
        *(_tensor("input", item, None) for item in session.get_inputs()),
        *(
            _tensor("output", item, LABELS_FILE if labels else None)
            for item in session.get_outputs()
        ),
        "version_policy { latest { num_versions: 1 } }",
        f"instance_group [ {{ count: {machine.instances} kind: {_KINDS[machine.device]} }} ]",
        # what waits runs together and nothing waits for more, which costs more than it saves
        *(["dynamic_batching { }"] if max_batch > 1 else []),
        *(_parameter(name, "1") for name in ("intra_op_thread_count", "inter_op_thread_count")),
    ]
    (directory / CONFIGURATION_FILE).write_text("\n".join(blocks) + "\n", "utf-8")
    if labels:
        (directory / LABELS_FILE).write_text("".join(f"{name}\n" for name in labels), "utf-8")


def _tensor(kind: str, item: Any, labels: str | None) -> str:
    """One input or output; the batch is the first axis, which the configuration leaves out."""
    if item.type not in _TYPES or not item.shape or isinstance(item.shape[0], int):
        raise PackageError(
            f"{item.name} is {item.type} of shape {item.shape}, which Triton's onnxruntime backend "
            "cannot batch; build the bundle again"
        )
    axes = [axis if isinstance(axis, int) else -1 for axis in item.shape[1:]]
    lines = [f"name: {_text(item.name)}", f"data_type: {_TYPES[item.type]}"]
    # one value per row: (rows, 1) to the client, (rows,) to the graph
    lines += [f"dims: {axes}"] if axes else ["dims: [1]", "reshape { shape: [] }"]
    lines += [f"label_filename: {_text(labels)}"] if labels else []
    body = "".join(f"  {line}\n" for line in lines)
    return f"{kind} {{\n{body}}}"


def _parameter(name: str, value: str) -> str:
    return f"parameters {{ key: {_text(name)} value: {{ string_value: {_text(value)} }} }}"


def _text(value: str) -> str:
    """A string of the text format: JSON's escapes are among its own."""
    return json.dumps(value)
