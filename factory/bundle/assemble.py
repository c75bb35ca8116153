"""Assemble the directory of a bundle, and open it through the server's own code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import UNSET

from factory.bundle.measurements import RunMeasurements
from factory.data.dataset import Dataset
from factory.evaluation.thresholds import Thresholds
from factory.export.forms import FORMS, FormName
from factory.export.onnx import INPUT_NAMES, OUTPUT_NAME
from factory.runtime.environment import library_versions
from serving.bundle import Manifest, ModelFile, describe_files, write_manifest
from serving.predictor import Predictor

# Written after the manifest lists the files; names with a dot are left by a killed run.
NOT_CONTENT = ("manifest.json", "artifact.json", ".manifest.json", ".artifact.json")
NOTHING_MEASURED = RunMeasurements()
MODEL_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)


@dataclass(frozen=True, slots=True)
class BundleParts:
    """What the manifests of a bundle have in common, whichever form they serve."""

    name: str
    version: str
    dataset: Dataset
    max_length: int
    opset: int
    recipe: Mapping[str, Any]
    lineage: Mapping[str, str]
    data_facts: Mapping[str, Any]
    thresholds: Thresholds | None = None


def copy_files(directory: Path, model_directory: Path, forms: Mapping[FormName, Path]) -> None:
    """Copy tokenizer, configuration and ONNX files into the layout of the ecosystem.

    Every form has a file of its own until one is chosen. `model.safetensors` is left out: the
    server does not read it, and the store keeps it.
    """
    shutil.rmtree(directory / "onnx", ignore_errors=True)
    (directory / "onnx").mkdir()
    for name in MODEL_FILES:
        if (model_directory / name).is_file():
            shutil.copyfile(model_directory / name, directory / name)
    for form, file in forms.items():
        shutil.copyfile(file, directory / candidate_file(form))


def write_max_length(directory: Path, max_length: int) -> None:
    """Write max_length into tokenizer_config.json, so that other loaders truncate there too.

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


def candidate_file(form: FormName) -> str:
    """The file of a form until one form is chosen."""
    return f"onnx/candidate_{form}.onnx"


def ship_only(directory: Path, chosen: FormName) -> str:
    """Keep the chosen form and fp32 under their final names; returns the chosen form's.

    The other forms are removed: tools that load any file of a known name must not find a form
    that failed the gate.
    """
    for form in dict.fromkeys(("fp32", chosen)):
        (directory / candidate_file(form)).replace(directory / FORMS[form].file)
    for left in (directory / "onnx").glob("candidate_*"):
        left.unlink()
    return FORMS[chosen].file


def open_candidate(
    directory: Path, parts: BundleParts, form: FormName, threads: int = 1
) -> Predictor:
    """Open an assembled bundle with one form as the served model; checksums are verified.

    Tokenizer, truncation, session settings and batching are the server's, so a score measured
    through it is the score that will be served.
    """
    manifest = make_manifest(directory, parts, form, candidate_file(form))
    write_manifest(directory, manifest)
    return Predictor.open(directory, threads=threads)


def make_manifest(
    directory: Path,
    parts: BundleParts,
    form: FormName,
    file: str,
    measurements: RunMeasurements = NOTHING_MEASURED,
) -> Manifest:
    """The manifest of the assembled files with `form`, in `file`, as the served model."""
    facts = measurements.to_facts()
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
            variant=form,
            inputs=list(INPUT_NAMES),
            output=OUTPUT_NAME,
            opset=parts.opset,
            neighbour_independent=FORMS[form].neighbour_independent,
        ),
        files=describe_files(directory, files),
        scores=facts.pop("scores", {}),
        measurements=facts,
        gate=facts.get("verdicts", {}).get(form, []),
        recipe=dict(parts.recipe),
        versions=library_versions(),
        lineage=dict(parts.lineage),
        data=dict(parts.data_facts),
    )
