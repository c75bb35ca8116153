"""Assemble the directory of a bundle, and open it through the server's own code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from msgspec import UNSET

from factory.bundle.measurements import RunMeasurements
from factory.data.dataset import Dataset
from factory.evaluation.thresholds import Thresholds
from factory.export.forms import FORMS, FormName
from factory.export.onnx import INPUT_NAMES, OUTPUT_NAME
from factory.recipe.recipe import Recipe
from factory.runtime.environment import library_versions
from serving.bundle import Manifest, ModelFile, describe_files, write_manifest
from serving.predictor import Predictor

# Not listed in the manifest; a killed run may leave the names with a dot.
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
    """The fields of a bundle's manifest that do not depend on the served form.

    Args:
        lineage: fingerprint of each stage that the bundle was made from.
        thresholds: of the student; None unless the task is multilabel.
    """

    recipe: Recipe
    version: str
    dataset: Dataset
    lineage: Mapping[str, str]
    thresholds: Thresholds | None = None


def copy_files(directory: Path, model_directory: Path, forms: Mapping[FormName, Path]) -> None:
    """Copy tokenizer, configuration and ONNX files into the layout of the ecosystem.

    Every form has a file of its own until one is chosen. `model.safetensors` is left out, because
    the server does not read it.
    """
    shutil.rmtree(directory / "onnx", ignore_errors=True)
    (directory / "onnx").mkdir()
    for name in MODEL_FILES:
        if (model_directory / name).is_file():
            shutil.copyfile(model_directory / name, directory / name)
    for form, file in forms.items():
        shutil.copyfile(file, directory / candidate_file(form))


def write_max_length(directory: Path, max_length: int) -> None:
    """Write max_length into the files of other loaders, so that they truncate at the same length.

    `tokenizer_config.json` is read by transformers and transformers.js, `sentence_bert_config.json`
    by text-embeddings-inference.
    """
    file = directory / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    for name, content in (
        (file.name, {**settings, "model_max_length": max_length}),
        ("sentence_bert_config.json", {"max_seq_length": max_length}),
    ):
        text = json.dumps(content, indent=2, ensure_ascii=False)
        (directory / name).write_text(text + "\n", encoding="utf-8")


def candidate_file(form: FormName) -> str:
    """The file of a form until one form is chosen."""
    return f"onnx/candidate_{form}.onnx"


def ship_only(directory: Path, chosen: FormName) -> str:
    """Keep the chosen form and fp32 under their final names; returns the chosen form's.

    The other forms are removed, because tools load any file with a known name.
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
    write_manifest(directory, make_manifest(directory, parts, form, candidate_file(form)))
    return Predictor.open(directory, threads=threads)


def make_manifest(
    directory: Path,
    parts: BundleParts,
    form: FormName,
    file: str,
    measurements: RunMeasurements | None = None,
) -> Manifest:
    """The manifest of the assembled files with `form`, in `file`, as the served model."""
    facts = {} if measurements is None else measurements.to_facts()
    files = [
        path.relative_to(directory).as_posix()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.name.startswith(NOT_CONTENT)
    ]
    recipe, dataset = parts.recipe, parts.dataset
    return Manifest(
        name=recipe.name,
        version=parts.version,
        task=dataset.task,
        labels=list(dataset.labels),
        thresholds=UNSET if parts.thresholds is None else list(parts.thresholds.values),
        text_pair=dataset.train.text_pairs is not None,
        max_length=recipe.data.max_length,
        model=ModelFile(
            file=file,
            form=form,
            inputs=list(INPUT_NAMES),
            output=OUTPUT_NAME,
            opset=recipe.export.opset,
            neighbour_independent=FORMS[form].neighbour_independent,
        ),
        files=describe_files(directory, files),
        scores=facts.pop("scores", {}),
        measurements=facts,
        gate=facts.get("verdicts", {}).get(form, []),
        recipe=recipe.model_dump(mode="json"),
        versions=library_versions(),
        lineage=dict(parts.lineage),
        data={"rows": {split.name: len(split) for split in dataset.splits()}},
    )
