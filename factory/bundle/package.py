"""A finished bundle in another form: for phones, one file that reads strings, for Triton."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from factory.bundle.triton import (
    MAX_BATCH,
    VERSION_DIRECTORY,
    TritonMachine,
    repository_name,
    write_model_configuration,
)
from factory.errors import PackageError, TextModelError
from factory.runtime.progress import say
from serving.bundle import TOKENIZER_NAME, Manifest, read_manifest, verify_files

PackageFormat = Literal["ort", "text", "triton"]
LABELS_FILE = "labels.json"
TEXT_FILE = "model.onnx"
# What a phone's own tokenizer may read instead of tokenizer.json.
VOCABULARY_FILE = "vocab.txt"


def package_bundle(
    bundle: Path, output: Path, form: PackageFormat, machine: TritonMachine | None = None
) -> None:
    """Write a bundle's model in another form into a new directory.

    `ort`: `model.ort`, `required_operators_and_types.config`, `tokenizer.json`, `vocab.txt` where
    the bundle has one, and `labels.json`, which says how to use them.
    `text`: `model.onnx`, which reads strings, and `labels.json`.
    `triton`: a model repository of one model that reads tokens and, where the tokenizer can be put
    into the graph, one that reads strings; `tokenizer.json` and `labels.json` beside them.

    Args:
        machine: what Triton runs the models on; None: one processor instance.
        output: a directory that does not exist; it appears whole or not at all.

    Raises:
        PackageError: `output` exists.
        BundleError: the bundle is not whole.
        FactoryError: the model has no such form, or answers otherwise in it.
    """
    manifest = read_manifest(bundle)
    verify_files(bundle, manifest)
    with _new_directory(output) as directory:
        if form == "triton":
            usage = _write_triton(bundle, manifest, directory, machine or TritonMachine())
        else:
            write = _write_ort if form == "ort" else _write_text
            usage = write(bundle, manifest, directory)
        (directory / LABELS_FILE).write_text(
            json.dumps(_answers(manifest) | usage, indent=2, ensure_ascii=False) + "\n",
            encoding="utf-8",
        )


def _write_ort(bundle: Path, manifest: Manifest, directory: Path) -> dict[str, Any]:
    """The files of a phone; returns how to call the model."""
    from transformers import BertConfig

    from factory.export.mobile import ORT_FILE, write_mobile

    config = BertConfig.from_pretrained(bundle)
    facts = write_mobile(bundle / manifest.model.file, directory, config)
    say(
        f"{ORT_FILE}: {facts.size_bytes / 1e6:.1f} MB, {facts.operators} kinds of operator, "
        f"logits within {facts.largest_difference:.1g} of {manifest.model.file}"
    )
    for name in (TOKENIZER_NAME, VOCABULARY_FILE):
        if name in manifest.files:
            shutil.copyfile(bundle / name, directory / name)
    return {"inputs": manifest.model.inputs, "outputs": [manifest.model.output]}


def _write_text(bundle: Path, manifest: Manifest, directory: Path) -> dict[str, Any]:
    """The file that reads strings; returns how to call it."""
    from factory.export.text.write import write_bundle_text_model

    facts = write_bundle_text_model(bundle, directory / TEXT_FILE)
    say(
        f"{TEXT_FILE}: {facts.size_bytes / 1e6:.1f} MB, reads {facts.code_points} characters and "
        f"{facts.strings} strings as tokenizer.json does, scores within "
        f"{facts.largest_difference:.1g} of {manifest.model.file}"
    )
    outputs = ["scores"] if manifest.task == "regression" else ["label", "scores"]
    return {
        "inputs": ["text", "text_pair"][: 1 + manifest.text_pair],
        "outputs": outputs,
    }


def _write_triton(
    bundle: Path, manifest: Manifest, directory: Path, machine: TritonMachine
) -> dict[str, Any]:
    """A model repository; returns how to call its models."""
    name = repository_name(manifest.name)
    batch = MAX_BATCH if manifest.model.neighbour_independent else 1
    tokens = directory / name / VERSION_DIRECTORY
    tokens.mkdir(parents=True)
    shutil.copyfile(bundle / manifest.model.file, tokens / TEXT_FILE)
    write_model_configuration(directory / name, machine, batch, manifest.labels)
    shutil.copyfile(bundle / TOKENIZER_NAME, directory / TOKENIZER_NAME)
    usage: dict[str, Any] = {
        "models": {
            name: {"inputs": manifest.model.inputs, "outputs": [manifest.model.output]},
        }
    }
    strings = directory / f"{name}_text"
    (strings / VERSION_DIRECTORY).mkdir(parents=True)
    try:
        told = _write_text(bundle, manifest, strings / VERSION_DIRECTORY)
    except TextModelError as error:
        say(f"no model that reads strings: {error}")
        shutil.rmtree(strings)
        return usage
    # strings are read on the processor, and the network behind them in the same session
    write_model_configuration(strings, TritonMachine(instances=machine.instances), batch, ())
    usage["models"][strings.name] = told
    return usage


def _answers(manifest: Manifest) -> dict[str, Any]:
    """What a program must know beside the model, whatever its form."""
    facts: dict[str, Any] = {
        "name": manifest.name,
        "version": manifest.version,
        "variant": manifest.model.variant,
        "task": manifest.task,
        "labels": manifest.labels,
        "text_pair": manifest.text_pair,
        "max_length": manifest.max_length,
    }
    if isinstance(manifest.thresholds, list):
        facts["thresholds"] = manifest.thresholds
    return facts


@contextlib.contextmanager
def _new_directory(output: Path) -> Iterator[Path]:
    """A directory that gets the name `output` when the work is done, and is gone if it fails.

    Raises:
        PackageError: there is something of that name.
    """
    if output.exists() or output.is_symlink():
        raise PackageError(f"{output}: exists already; give another directory or remove it")
    output.parent.mkdir(parents=True, exist_ok=True)
    # beside it, so that a rename publishes it
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as scratch:
        directory = Path(scratch) / "package"  # with the permissions a new directory should have
        directory.mkdir()
        yield directory
        directory.rename(output)
