"""The directory we ship: assemble it, and score it through the server's own code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import UNSET

from factory.data.dataset import Dataset
from factory.evaluation.thresholds import Thresholds
from factory.export.forms import FORMS, FormName
from factory.export.onnx import INPUT_NAMES, OUTPUT_NAME
from factory.runtime.environment import library_versions
from serving.bundle import Manifest, ModelFile, describe_files, write_manifest
from serving.predictor import Predictor

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


def copy_files(directory: Path, model_directory: Path, variants: Mapping[FormName, Path]) -> None:
    """Put tokenizer, configuration and ONNX files into place, in the layout of the ecosystem.

    Each variant has a file of its own until one of them is chosen. `model.safetensors` stays out:
    a bundle serves, and the plain model stands in the store.
    """
    shutil.rmtree(directory / "onnx", ignore_errors=True)
    (directory / "onnx").mkdir()
    for name in MODEL_FILES:
        if (model_directory / name).is_file():
            shutil.copyfile(model_directory / name, directory / name)
    for variant, file in variants.items():
        shutil.copyfile(file, directory / candidate_file(variant))


def tell_max_length(directory: Path, max_length: int) -> None:
    """Let other loaders cut texts where the bundle does, and not at the network's own limit.

    `tokenizer_config.json` is read by transformers and transformers.js, `sentence_bert_config.json`
    by text-embeddings-inference.
    """
    file = directory / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    settings["model_max_length"] = max_length
    for name, content in (
        (file.name, settings),
        ("sentence_bert_config.json", {"max_seq_length": max_length}),
    ):
        text = json.dumps(content, indent=2, ensure_ascii=False)
        (directory / name).write_text(text + "\n", encoding="utf-8")


def candidate_file(variant: FormName) -> str:
    """Where a variant stands while all of them are compared."""
    return f"onnx/candidate_{variant}.onnx"


def ship_only(directory: Path, chosen: FormName) -> str:
    """Keep the chosen variant and fp32 under the names others look for; returns the chosen's.

    Tools that take any file of a known name must not find one that the gate refused.
    """
    for variant in dict.fromkeys(("fp32", chosen)):
        (directory / candidate_file(variant)).replace(directory / FORMS[variant].file)
    for left in (directory / "onnx").glob("candidate_*"):
        left.unlink()
    return FORMS[chosen].file


def open_candidate(
    directory: Path, parts: BundleParts, variant: FormName, threads: int = 1
) -> Predictor:
    """Open an assembled bundle with a candidate as the served model, checksums verified.

    This is the served path: tokenizer, truncation, session settings and batching are the
    server's, so a score taken through it is the score that will be served.
    """
    manifest = make_manifest(directory, parts, variant, candidate_file(variant))
    write_manifest(directory, manifest)
    return Predictor.open(directory, threads=threads)


def make_manifest(
    directory: Path,
    parts: BundleParts,
    variant: FormName,
    file: str,
    *,
    scores: Mapping[str, Any] | None = None,
    measurements: Mapping[str, Any] | None = None,
    gate: list[dict[str, Any]] | None = None,
) -> Manifest:
    """The manifest of the assembled files with `variant`, in `file`, as the served model."""
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
            file=file,
            variant=variant,
            inputs=list(INPUT_NAMES),
            output=OUTPUT_NAME,
            opset=parts.opset,
            neighbour_independent=FORMS[variant].neighbour_independent,
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
