"""A bundle as text for people: the result table, gate lines, the list of labels."""

from __future__ import annotations

from collections.abc import Mapping

from factory.bundle.measurements import TORCH_MODELS, read_measurements
from factory.export.forms import FORMS
from factory.recipe.task import TASK_TRAITS
from serving.bundle import Manifest

LABELS_SHOWN = 30
MODEL_LABELS: Mapping[str, str] = {
    **TORCH_MODELS,
    **{name: f"student, {form.label}" for name, form in FORMS.items()},
}


def result_table(manifest: Manifest, split: str | None = None) -> str:
    """A Markdown table of every model: metric with interval, retention, size, latency, front.

    Args:
        split: dev or test; None: the split of the gate.
    """
    measured = read_measurements(manifest)
    metric = gate_metric(manifest)
    split = split or str(manifest.recipe["gate"]["split"])
    scores = {model: splits[split][metric] for model, splits in measured.scores.items()}
    front = pareto_front(
        {
            form: (-score.value, measured.size_bytes[form], measured.latency[form].p50_ms)
            for form, score in scores.items()
            if form not in TORCH_MODELS
        }
    )
    lines = [
        f"| model | {metric} on {split} (95 %) | retention | size | p50 | p95 | Pareto front |",
        "|---|---|---|---|---|---|---|",
    ]
    teacher = scores["teacher"].value
    for model in (name for name in MODEL_LABELS if name in scores):
        score, latency = scores[model], measured.latency.get(model)
        served = " (served)" if model == manifest.model.form else ""
        cells = [
            f"{MODEL_LABELS[model]}{served}",
            f"{score.value:.4f} ({score.low:.4f} to {score.high:.4f})",
            f"{100 * score.value / teacher:.1f} %" if teacher > 0 else "-",
            f"{measured.size_bytes[model] / 1e6:.1f} MB",
            "-" if latency is None else f"{latency.p50_ms:.2f} ms",
            "-" if latency is None else f"{latency.p95_ms:.2f} ms",
            "yes" if model in front else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def pareto_front(costs: Mapping[str, tuple[float, ...]]) -> list[str]:
    """The Pareto front: no other one is at least as good in every cost and better in one."""

    def beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        return one != other and all(mine <= theirs for mine, theirs in zip(one, other, strict=True))

    return [
        name for name, own in costs.items() if not any(beats(cost, own) for cost in costs.values())
    ]


def gate_metric(manifest: Manifest) -> str:
    """The metric of the gate: the recipe's, or the default one of the task."""
    metric: str | None = manifest.recipe["gate"]["metric"]
    return metric or TASK_TRAITS[manifest.task].metrics[0]


def gate_lines(manifest: Manifest) -> list[str]:
    """One line per gate rule."""
    return [f"{'pass' if rule['passed'] else 'FAIL'}  {rule['text']}" for rule in manifest.gate]


def label_list(manifest: Manifest) -> str:
    """The labels on one line; long lists are shortened."""
    labels = manifest.labels
    shown = ", ".join(labels[:LABELS_SHOWN])
    hidden = len(labels) - LABELS_SHOWN
    return f"{shown} and {hidden} more, {len(labels)} in all" if hidden > 0 else shown
