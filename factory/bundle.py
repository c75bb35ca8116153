"""The directory we ship: assemble it, and score it through the server's own code."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import UNSET

from factory.data.dataset import Dataset
from factory.export.onnx import INPUT_NAMES, OUTPUT_NAME
from factory.thresholds import Thresholds
from factory.versions import library_versions
from serving.bundle import Manifest, ModelFile, describe_files, write_manifest
from serving.predictor import Predictor

# Names that transformers.js, optimum and text-embeddings-inference look for.
VARIANT_FILES = {"fp32": "onnx/model.onnx", "int8": "onnx/model_quantized.onnx"}
# Dynamic quantization scales activations over the whole batch, so neighbours change an answer.
NEIGHBOUR_INDEPENDENT = {"fp32": True, "int8": False}
# Both are written later; with a dot before it, what a killed run left of them.
NOT_CONTENT = ("manifest.json", "artifact.json", ".manifest.json", ".artifact.json")
MODEL_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)


@dataclass(frozen=True, slots=True)
class BundleParts:
    """What every manifest of one bundle has in common, whichever variant it names."""

    name: str
    version: str
    dataset: Dataset
    max_length: int
    opset: int
    recipe: Mapping[str, Any]
    lineage: Mapping[str, str]
    data_facts: Mapping[str, Any]
    thresholds: Thresholds | None = None


def copy_files(directory: Path, model_directory: Path, variants: Mapping[str, Path]) -> None:
    """Put tokenizer, configuration and ONNX files into place, in the layout of the ecosystem.

    `model.safetensors` stays out: a bundle serves, and the plain model stands in the store.
    """
    (directory / "onnx").mkdir(exist_ok=True)
    for name in MODEL_FILES:
        if (model_directory / name).is_file():
            shutil.copyfile(model_directory / name, directory / name)
    for variant, file in variants.items():
        shutil.copyfile(file, directory / VARIANT_FILES[variant])


def open_variant(directory: Path, parts: BundleParts, variant: str) -> Predictor:
    """Open an assembled bundle with `variant` as the served model, checksums verified.

    This is the served path: tokenizer, truncation, session settings and batching are the
    server's, so a score taken through it is the score that will be served.
    """
    write_manifest(directory, make_manifest(directory, parts, variant))
    return Predictor.open(directory)


def make_manifest(
    directory: Path,
    parts: BundleParts,
    variant: str,
    *,
    scores: Mapping[str, Any] | None = None,
    measurements: Mapping[str, Any] | None = None,
    gate: list[dict[str, Any]] | None = None,
) -> Manifest:
    """The manifest of the assembled files with `variant` as the served model."""
    files = [
        file.relative_to(directory).as_posix()
        for file in sorted(directory.rglob("*"))
        if file.is_file() and not file.name.startswith(NOT_CONTENT)
    ]
    return Manifest(
        name=parts.name,
        version=parts.version,
        task=parts.dataset.task,
        labels=list(parts.dataset.labels),
        thresholds=UNSET if parts.thresholds is None else list(parts.thresholds.values),
        text_pair=parts.dataset.train.text_pairs is not None,
        max_length=parts.max_length,
        model=ModelFile(
            file=VARIANT_FILES[variant],
            variant=variant,
            inputs=list(INPUT_NAMES),
            output=OUTPUT_NAME,
            opset=parts.opset,
            neighbour_independent=NEIGHBOUR_INDEPENDENT[variant],
        ),
        files=describe_files(directory, files),
        scores=dict(scores or {}),
        measurements=dict(measurements or {}),
        gate=list(gate or []),
        recipe=dict(parts.recipe),
        versions=library_versions(),
        lineage=dict(parts.lineage),
        data=dict(parts.data_facts),
    )
