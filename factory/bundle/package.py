"""Package a finished bundle: for phones, as one file that reads strings, or for Triton."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from factory.errors import PackageError, TextModelError
from factory.recipe.task import TASK_TRAITS
from factory.runtime.progress import say
from serving.bundle import TOKENIZER_NAME, Manifest, read_manifest, verify_files

PackageFormat = Literal["ort", "text", "triton"]
TritonDevice = Literal["cpu", "gpu", "auto"]
USAGE_FILE = "labels.json"
ONNX_FILE = "model.onnx"
# Some tokenizers on phones read it instead of tokenizer.json.
VOCABULARY_FILE = "vocab.txt"

TRITON_CONFIGURATION_FILE = "config.pbtxt"
TRITON_LABELS_FILE = "labels.txt"
TRITON_VERSION = "1"
TRITON_MAX_BATCH = 32
_TRITON_KINDS = {"cpu": "KIND_CPU", "gpu": "KIND_GPU", "auto": "KIND_AUTO"}
_TRITON_TYPES = {
    "tensor(int64)": "TYPE_INT64",
    "tensor(int32)": "TYPE_INT32",
    "tensor(float)": "TYPE_FP32",
    "tensor(float16)": "TYPE_FP16",
    "tensor(bool)": "TYPE_BOOL",
    "tensor(string)": "TYPE_STRING",
}


@dataclass(frozen=True, slots=True)
class TritonMachine:
    """The device that Triton runs a model on, and the number of instances of the model.

    "auto" is a GPU if Triton has one that its onnxruntime can use, else the CPU.
    """

    device: TritonDevice = "cpu"
    instances: int = 1


def package_bundle(bundle: Path, output: Path, form: PackageFormat, machine: TritonMachine) -> None:
    """Write the model of a bundle in another format into a new directory.

    `ort`: `model.ort`, `required_operators_and_types.config`, `tokenizer.json`, `vocab.txt` where
    the bundle has one, and `labels.json`, which describes inputs, outputs and labels.
    `text`: `model.onnx`, which reads strings, and `labels.json`.
    `triton`: a model repository of one model that reads tokens and, where the tokenizer can be put
    into the graph, one that reads strings; `tokenizer.json` and `labels.json` beside them.

    Args:
        output: a directory that does not exist; it is created complete or not at all.
        machine: of the Triton models.

    Raises:
        PackageError: `output` exists.
        BundleError: a file of the bundle is missing or changed.
        FactoryError: the model cannot be written in this format, or its outputs differ.
    """
    manifest = read_manifest(bundle)
    verify_files(bundle, manifest)
    with _new_directory(output) as directory:
        usage: dict[str, Any] = {
            "name": manifest.name,
            "version": manifest.version,
            "form": manifest.model.form,
            "task": manifest.task,
            "labels": manifest.labels,
            "text_pair": manifest.text_pair,
            "max_length": manifest.max_length,
        }
        if isinstance(manifest.thresholds, list):
            usage["thresholds"] = manifest.thresholds
        if form == "triton":
            usage |= _write_triton(bundle, manifest, directory, machine)
        else:
            write = _write_ort if form == "ort" else _write_text
            usage |= write(bundle, manifest, directory)
        text = json.dumps(usage, indent=2, ensure_ascii=False)
        (directory / USAGE_FILE).write_text(text + "\n", encoding="utf-8")


def _write_ort(bundle: Path, manifest: Manifest, directory: Path) -> dict[str, Any]:
    """Files for phones; returns inputs and outputs of the model."""
    from transformers import BertConfig

    from factory.export.mobile import ORT_FILE, write_mobile

    config = BertConfig.from_pretrained(bundle)
    facts = write_mobile(bundle / manifest.model.file, directory, config)
    say(
        f"{ORT_FILE}: {facts.size_bytes / 1e6:.1f} MB, logits within "
        f"{facts.largest_difference:.1g} of {manifest.model.file}"
    )
    for name in (TOKENIZER_NAME, VOCABULARY_FILE):
        if name in manifest.files:
            shutil.copyfile(bundle / name, directory / name)
    return {"inputs": manifest.model.inputs, "outputs": [manifest.model.output]}


def _write_text(bundle: Path, manifest: Manifest, directory: Path) -> dict[str, Any]:
    """A file that reads strings; returns its inputs and outputs."""
    from factory.export.text.write import write_bundle_text_model

    facts = write_bundle_text_model(bundle, directory / ONNX_FILE)
    say(
        f"{ONNX_FILE}: {facts.size_bytes / 1e6:.1f} MB, {facts.code_points} characters and "
        f"{facts.strings} strings tokenized as with tokenizer.json, scores within "
        f"{facts.largest_difference:.1g} of {manifest.model.file}"
    )
    outputs = ["label", "scores"] if TASK_TRAITS[manifest.task].has_labels else ["scores"]
    return {"inputs": ["text", "text_pair"][: 1 + manifest.text_pair], "outputs": outputs}


def _write_triton(
    bundle: Path, manifest: Manifest, directory: Path, machine: TritonMachine
) -> dict[str, Any]:
    """A model repository; returns inputs and outputs of its models."""
    name = triton_name(manifest.name)
    batch = TRITON_MAX_BATCH if manifest.model.neighbour_independent else 1
    tokens = directory / name / TRITON_VERSION
    tokens.mkdir(parents=True)
    shutil.copyfile(bundle / manifest.model.file, tokens / ONNX_FILE)
    write_model_configuration(directory / name, machine, batch, manifest.labels)
    shutil.copyfile(bundle / TOKENIZER_NAME, directory / TOKENIZER_NAME)
    models: dict[str, Any] = {
        name: {"inputs": manifest.model.inputs, "outputs": [manifest.model.output]}
    }
    strings = directory / f"{name}_text"
    (strings / TRITON_VERSION).mkdir(parents=True)
    try:
        models[strings.name] = _write_text(bundle, manifest, strings / TRITON_VERSION)
    except TextModelError as error:
        say(f"no model that reads strings was written: {error}")
        shutil.rmtree(strings)
        return {"models": models}
    # string operators run on the CPU, and the network runs in the same session
    write_model_configuration(strings, TritonMachine(instances=machine.instances), batch, ())
    return {"models": models}


def triton_name(name: str) -> str:
    """The name of a bundle as a directory name that is valid in Triton's URLs."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def write_model_configuration(
    directory: Path, machine: TritonMachine, max_batch: int, labels: Sequence[str]
) -> None:
    """Write config.pbtxt for the ONNX file in the model's first version, from its graph.

    The format is the text form of `inference.ModelConfig` (triton-inference-server/common,
    protobuf/model_config.proto).

    Args:
        directory: of the model; its name is the model's name.
        max_batch: rows per run; with 1, requests are not batched.
        labels: names of the columns of a single float output, for Triton's classification
            extension; empty: no file of labels.

    Raises:
        PackageError: a tensor that Triton's onnxruntime backend cannot take.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    path = directory / TRITON_VERSION / ONNX_FILE
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    kind = _TRITON_KINDS[machine.device]
    blocks = [
        f"name: {_text(directory.name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {max_batch}",
        *(_tensor("input", item, None) for item in session.get_inputs()),
        *(
            _tensor("output", item, TRITON_LABELS_FILE if labels else None)
            for item in session.get_outputs()
        ),
        "version_policy { latest { num_versions: 1 } }",
        f"instance_group [ {{ count: {machine.instances} kind: {kind} }} ]",
        # without delay: waiting for more requests costs more than it saves
        *(["dynamic_batching { }"] if max_batch > 1 else []),
        *(
            f'parameters {{ key: "{name}" value: {{ string_value: "1" }} }}'
            for name in ("intra_op_thread_count", "inter_op_thread_count")
        ),
    ]
    (directory / TRITON_CONFIGURATION_FILE).write_text("\n".join(blocks) + "\n", "utf-8")
    if labels:
        (directory / TRITON_LABELS_FILE).write_text(
            "".join(f"{name}\n" for name in labels), "utf-8"
        )


def _tensor(kind: str, item: Any, labels: str | None) -> str:
    """One input or output; the configuration omits the first axis, the batch."""
    if item.type not in _TRITON_TYPES or not item.shape or isinstance(item.shape[0], int):
        raise PackageError(
            f"{item.name} is {item.type} of shape {item.shape}, which Triton's onnxruntime backend "
            "cannot batch; build the bundle again"
        )
    axes = [axis if isinstance(axis, int) else -1 for axis in item.shape[1:]]
    lines = [f"name: {_text(item.name)}", f"data_type: {_TRITON_TYPES[item.type]}"]
    # one value per row: (rows, 1) to the client, (rows,) to the graph
    lines += [f"dims: {axes}"] if axes else ["dims: [1]", "reshape { shape: [] }"]
    lines += [f"label_filename: {_text(labels)}"] if labels else []
    body = "".join(f"  {line}\n" for line in lines)
    return f"{kind} {{\n{body}}}"


def _text(value: str) -> str:
    """A string in protobuf text format, which accepts the escapes of JSON."""
    return json.dumps(value)


@contextlib.contextmanager
def _new_directory(output: Path) -> Iterator[Path]:
    """A directory that is renamed to `output` on success and removed on failure.

    Raises:
        PackageError: `output` exists.
    """
    if output.exists() or output.is_symlink():
        raise PackageError(f"{output} already exists; give another directory or remove it")
    output.parent.mkdir(parents=True, exist_ok=True)
    # beside it, so that a rename publishes it
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as scratch:
        directory = Path(scratch) / "package"  # with the permissions a new directory should have
        directory.mkdir()
        yield directory
        directory.rename(output)
