"""What was built, as tables people read: the result table and the bundle's model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from factory.export.forms import FORMS
from factory.recipe.gate import TASK_METRICS
from serving.bundle import Manifest

LABELS_SHOWN = 30
TORCH_MODELS = ("teacher", "student", "unpruned", "baseline")
NAMES: Mapping[str, str] = {
    "teacher": "teacher (torch)",
    "student": "student (torch)",
    "unpruned": "student before pruning (torch)",
    "baseline": "student without distillation (torch)",
    **{name: f"student, {form.label}" for name, form in FORMS.items()},
}


def result_table(manifest: Manifest, split: str | None = None) -> str:
    """Markdown table of every model: metric with interval, retention, size, latency, front."""
    metric = _metric(manifest)
    chosen_split = split or manifest.recipe["gate"]["split"]
    column = f"{metric} on {chosen_split} (95 %)"
    head = f"| model | {column} | kept of teacher | size | p50 | p95 | front |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    front = pareto_front(manifest, chosen_split)
    teacher = manifest.scores["teacher"][chosen_split][metric]["value"]
    for model in (name for name in NAMES if name in manifest.scores):
        score = manifest.scores[model][chosen_split][metric]
        kept = f"{100 * score['value'] / teacher:.1f} %" if teacher > 0 else "-"
        shipped = " (served)" if model == manifest.model.variant else ""
        lines.append(
            f"| {NAMES[model]}{shipped} | {score['value']:.4f} "
            f"({score['low']:.4f} to {score['high']:.4f}) | {kept} | "
            f"{_size(manifest, model)} | {_latency(manifest, model)} | "
            f"{'yes' if model in front else ''} |"
        )
    return "\n".join(lines)


def pareto_front(manifest: Manifest, split: str) -> list[str]:
    """The exported forms that no other one matches in metric, size and p50 while it beats one."""
    measured = manifest.measurements
    metric = _metric(manifest)
    costs = {
        form: (
            -manifest.scores[form][split][metric]["value"],
            measured["size_bytes"][form],
            measured["latency"][form]["p50_ms"],
        )
        for form in NAMES
        if form in manifest.scores and form not in TORCH_MODELS
    }
    return [form for form, own in costs.items() if not any(_beats(o, own) for o in costs.values())]


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(mine <= theirs for mine, theirs in zip(one, other, strict=True))


def label_list(manifest: Manifest) -> str:
    """The labels on one line, of many only the first."""
    labels = manifest.labels
    shown = ", ".join(labels[:LABELS_SHOWN])
    hidden = len(labels) - LABELS_SHOWN
    return f"{shown} and {hidden} more, {len(labels)} in all" if hidden > 0 else shown


def gate_lines(manifest: Manifest) -> list[str]:
    """One line per gate rule, as it was decided."""
    return [f"{'pass' if rule['passed'] else 'FAIL'}  {rule['text']}" for rule in manifest.gate]


def model_card(manifest: Manifest) -> str:
    """The bundle's README.md: what it is, how good, what it costs, how to use it."""
    rows = manifest.data["rows"]
    splits = [split for split in ("dev", "test") if split in rows]
    tables = "\n\n".join(
        f"### {split} ({rows[split]} rows)\n\n{result_table(manifest, split)}" for split in splits
    )
    kind = "pairs of texts" if manifest.text_pair else "single texts"
    rules = "\n".join(f"- {line}" for line in gate_lines(manifest))
    return f"""# {manifest.name}

A {manifest.task} model for {kind}, distilled into a small BERT and exported to ONNX.

- served file: `{manifest.model.file}` ({manifest.model.variant})
- labels: {label_list(manifest)}
- at most {manifest.max_length} tokens per input; longer ones are cut
- version: `{manifest.version}`

## Results

{tables}
{_threshold_note(manifest)}
Latency: {manifest.measurements["latency_conditions"]}. Front: no other exported form is at least as
good in score, size and p50 and better in one of them.

## Gate

{rules}

Served form: {manifest.measurements["choice"]}.

## Use

```
python -m serving PATH_OF_THIS_FOLDER
```

`manifest.json` holds the recipe, versions, scores and the SHA-256 of every file.
"""


def _threshold_note(manifest: Manifest) -> str:
    """How the labels of a multilabel model are decided, as a paragraph; else nothing."""
    if manifest.task != "multilabel":
        return ""
    if manifest.recipe["evaluate"]["thresholds"] == "tuned":
        return (
            "\nA label applies from its own probability threshold on (`thresholds` in "
            "`manifest.json`). Each model's were tuned on dev, which flatters the figures on dev; "
            "test took no part.\n"
        )
    value = manifest.recipe["evaluate"]["thresholds"]
    return f"\nA label applies from the probability {value:g} on.\n"


def _metric(manifest: Manifest) -> str:
    metric: str | None = manifest.recipe["gate"]["metric"]
    if metric is not None:
        return metric
    return TASK_METRICS[manifest.task][0]


def _size(manifest: Manifest, model: str) -> str:
    size_bytes: int = manifest.measurements["size_bytes"][model]
    return f"{size_bytes / 1e6:.1f} MB"


def _latency(manifest: Manifest, model: str) -> str:
    latency: Mapping[str, Any] | None = manifest.measurements["latency"].get(model)
    if latency is None:
        return "- | -"
    return f"{latency['p50_ms']:.2f} ms | {latency['p95_ms']:.2f} ms"
