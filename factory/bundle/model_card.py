"""The metadata of a model card: YAML in front of the bundle's README.md, for the Hub's loader.

The keys are those of https://huggingface.co/docs/hub/model-cards, written by `huggingface_hub`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from factory.store import ARTIFACT_FILE, Artifact, read_json
from serving.bundle import Manifest

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TAGS = ("onnx", "bert", "tinybert", "knowledge-distillation", "tinybert-factory")
# What the Hub calls a metric, and how a reader does.
METRICS: Mapping[str, tuple[str, str]] = {
    "accuracy": ("accuracy", "Accuracy"),
    "balanced_accuracy": ("balanced_accuracy", "Balanced accuracy"),
    "macro_f1": ("f1", "Macro F1"),
    "micro_f1": ("f1", "Micro F1"),
    "f1": ("f1", "F1"),
    "mcc": ("matthews_correlation", "Matthews correlation"),
    "exact_match": ("exact_match", "Exact match"),
    "pearson": ("pearsonr", "Pearson correlation"),
    "spearman": ("spearmanr", "Spearman correlation"),
}
OWN_FILES = "own-files"


@dataclass(frozen=True, slots=True)
class CardSources:
    """Hub names that a run found out by itself."""

    base_models: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()


def card_sources(artifacts: Mapping[str, Artifact]) -> CardSources:
    """Models and data from the hub, out of the records of the stages; local ones have no name."""
    teacher, data = _settings(artifacts["teacher"]), _settings(artifacts["data"])
    student = _settings(artifacts.get("unpruned", artifacts["student"]))
    identities = (teacher.get("model"), student.get("start"))
    source = data.get("source", {})
    from_hub = "hub" in source and "sha256" not in source  # a local folder has a hash
    return CardSources(
        tuple(dict.fromkeys(name for text in identities if (name := _hub_name(text)))),
        (source["hub"],) if from_hub else (),
    )


def card_metadata(manifest: Manifest, sources: CardSources) -> str:
    """The YAML block with its fences; what the recipe does not say and nobody knows is left out."""
    from huggingface_hub import ModelCardData

    said: Mapping[str, Any] = manifest.recipe.get("card", {})
    datasets = _several(said.get("datasets", []), sources.datasets)
    results = _results(manifest, datasets)
    data = ModelCardData(
        language=list(said.get("language", [])) or None,
        license=said.get("license"),
        library_name="onnx",
        pipeline_tag="text-classification",
        tags=_several(TAGS, (manifest.task, manifest.model.variant), said.get("tags", [])),
        base_model=_several(said.get("base_model", []), sources.base_models) or None,
        datasets=datasets or None,
        metrics=list(dict.fromkeys(one.metric_type for one in results)),
        model_name=manifest.name,
        eval_results=results,
    )
    return f"---\n{data.to_yaml()}\n---\n\n"


def _results(manifest: Manifest, datasets: list[str]) -> list[EvalResult]:
    """Every metric of the served form on every split."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="text-classification",
            task_name=manifest.task,
            dataset_type=datasets[0] if datasets else OWN_FILES,
            dataset_name=datasets[0] if datasets else f"{manifest.name}: own files",
            dataset_split=split,
            metric_type=METRICS[metric][0],
            metric_name=f"{METRICS[metric][1]} ({split})",
            metric_value=round(score["value"], 6),
        )
        for split, scores in manifest.scores[manifest.model.variant].items()
        for metric, score in scores.items()
        if metric in METRICS
    ]


def _settings(artifact: Artifact) -> Mapping[str, Any]:
    settings: Mapping[str, Any] = read_json(artifact.directory / ARTIFACT_FILE)["settings"]
    return settings


def _hub_name(identity: str | None) -> str | None:
    """The name in `hub:NAME@REVISION`, which is what a fingerprint records of a hub model."""
    if identity is None or not identity.startswith("hub:"):
        return None
    return identity.removeprefix("hub:").rpartition("@")[0]


def _several(*lists: Any) -> list[str]:
    return list(dict.fromkeys(str(entry) for entries in lists for entry in entries))
