"""The model card, README.md of a bundle: the Hub's metadata in YAML, then text for people.

The keys are those of https://huggingface.co/docs/hub/model-cards, written by `huggingface_hub`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from factory.bundle.measurements import read_measurements
from factory.bundle.tables import gate_lines, label_list, result_table
from factory.recipe.task import TASK_TRAITS
from factory.store import ARTIFACT_FILE, Artifact, read_json
from serving.bundle import Manifest

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TAGS = ("onnx", "bert", "tinybert", "knowledge-distillation", "tinybert-factory")
# The Hub's name of a metric, and its name for people.
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
    """Models and data sets of the Hub that a run was made from."""

    base_models: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()


def card_sources(models: Mapping[str, Artifact], data: Artifact) -> CardSources:
    """Models and data from the Hub, from the records of the stages; local ones are left out."""
    student = models.get("unpruned") or models["student"]
    identities = (_settings(models["teacher"]).get("model"), _settings(student).get("start"))
    # a hub model is identified by hub:NAME@REVISION
    names = [
        text.removeprefix("hub:").rpartition("@")[0]
        for text in identities
        if text is not None and text.startswith("hub:")
    ]
    source = _settings(data).get("source", {})
    from_hub = "hub" in source and "sha256" not in source  # a local folder has a hash
    return CardSources(tuple(dict.fromkeys(names)), (source["hub"],) if from_hub else ())


def _settings(artifact: Artifact) -> Mapping[str, Any]:
    settings: Mapping[str, Any] = read_json(artifact.directory / ARTIFACT_FILE)["settings"]
    return settings


def model_card(manifest: Manifest, sources: CardSources) -> str:
    """The content of README.md."""
    return card_metadata(manifest, sources) + card_text(manifest)


def card_metadata(manifest: Manifest, sources: CardSources) -> str:
    """The YAML block with its fences; unknown keys are left out."""
    from huggingface_hub import ModelCardData

    card: Mapping[str, Any] = manifest.recipe.get("card", {})
    datasets = _unique(card.get("datasets", []), sources.datasets)
    results = _results(manifest, datasets)
    data = ModelCardData(
        language=list(card.get("language", [])) or None,
        license=card.get("license"),
        library_name="onnx",
        pipeline_tag="text-classification",
        tags=_unique(TAGS, (manifest.task, manifest.model.form), card.get("tags", [])),
        base_model=_unique(card.get("base_model", []), sources.base_models) or None,
        datasets=datasets or None,
        metrics=list(dict.fromkeys(one.metric_type for one in results)),
        model_name=manifest.name,
        eval_results=results,
    )
    return f"---\n{data.to_yaml()}\n---\n\n"


def _results(manifest: Manifest, datasets: list[str]) -> list[EvalResult]:
    """Every metric of the served form on every split."""
    from huggingface_hub import EvalResult

    scores = read_measurements(manifest).scores[manifest.model.form]
    return [
        EvalResult(
            task_type="text-classification",
            task_name=manifest.task,
            dataset_type=datasets[0] if datasets else OWN_FILES,
            dataset_name=datasets[0] if datasets else f"{manifest.name}: own files",
            dataset_split=split,
            metric_type=METRICS[metric][0],
            metric_name=f"{METRICS[metric][1]} ({split})",
            metric_value=round(score.value, 6),
        )
        for split, metrics in scores.items()
        for metric, score in metrics.items()
        if metric in METRICS
    ]


def card_text(manifest: Manifest) -> str:
    """The card without its metadata: description, results, gate results, usage."""
    rows = manifest.data["rows"]
    tables = "\n\n".join(
        f"### {split} ({rows[split]} rows)\n\n{result_table(manifest, split)}"
        for split in ("dev", "test")
        if split in rows
    )
    kind = "pairs of texts" if manifest.text_pair else "single texts"
    rules = "\n".join(f"- {line}" for line in gate_lines(manifest))
    measured = read_measurements(manifest)
    return f"""# {manifest.name}

A {manifest.task} model for {kind}, distilled into a small BERT and exported to ONNX.

- served file: `{manifest.model.file}` ({manifest.model.form})
- labels: {label_list(manifest)}
- maximum length: {manifest.max_length} tokens; longer inputs are truncated
- version: `{manifest.version}`

## Results

{tables}
{_threshold_note(manifest)}
Latency: {measured.latency_conditions}. A form is on the Pareto front if no other form is at least
as good in score, size and p50 and better in one of them.

## Gate results

{rules}

Served form: {manifest.model.form}, {measured.choice}.

## Usage

```
python -m serving PATH_OF_THIS_FOLDER
```

`manifest.json` holds the recipe, versions, scores and the SHA-256 of every file.
"""


def _threshold_note(manifest: Manifest) -> str:
    """A paragraph about the thresholds of a multilabel model; empty for other tasks."""
    if not TASK_TRAITS[manifest.task].has_label_sets:
        return ""
    value = manifest.recipe["evaluate"]["thresholds"]
    if value == "tuned":
        return (
            "\nA label applies when its probability reaches its threshold (`thresholds` in "
            "`manifest.json`). The thresholds of every model were tuned on dev, so scores on dev "
            "are optimistic; test was not used.\n"
        )
    return f"\nA label applies when its probability is at least {value:g}.\n"


def _unique(*lists: Any) -> list[str]:
    return list(dict.fromkeys(str(entry) for entries in lists for entry in entries))
