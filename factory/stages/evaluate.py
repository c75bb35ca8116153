"""Stage evaluate: score every torch model on dev and test, then apply gate 1 to the student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from factory.evaluation import gate
from factory.recipe.recipe import Recipe
from factory.stages.sources import Sources
from factory.stages.stage import Facts, Run, Stage, model_stages, section


def _settings(recipe: Recipe, _sources: Sources) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "data": {"max_length": recipe.data.max_length},
        "gate": {"positive_label": recipe.gate.positive_label},
        "evaluate": section(recipe, "evaluate"),
    }
    if _tunes_thresholds(recipe):
        settings["tuned_for"] = recipe.tuning_goal
    return settings


def _make(output: Path, run: Run) -> Facts:
    import numpy as np

    from factory.evaluation.evaluate import evaluate_splits

    recipe, dataset, facts = run.recipe, run.dataset, Facts()
    for name, artifact in run.models.items():
        results = evaluate_splits(
            run.open_model(artifact),
            dataset.splits()[1:],
            dataset.labels,
            recipe.evaluate.thresholds,
            recipe.gate.positive_label,
            recipe.tuning_goal,
        )
        for split, result in results.items():
            np.save(output / f"{name}.{split}.npy", result.predicted)
            np.save(output / f"{name}.{split}.logits.npy", result.logits)
        facts[name] = {split: result.to_facts() for split, result in results.items()}
    return facts


def _check(run: Run) -> None:
    """Reject a student that is not better than chance, or fails gate 1, before any export."""
    from factory.evaluation.evaluate import check_student
    from factory.evaluation.results import evaluations_from_facts
    from factory.runtime.progress import say

    recipe = run.recipe
    evaluations = evaluations_from_facts(run.artifacts["evaluate"].facts)
    check_student(evaluations["student"]["dev"], run.dataset)
    measurements = gate.measure_student(recipe, evaluations)
    results = gate.check_rules(recipe.gate, recipe.metric, measurements)
    for line in gate.verdict_lines(results):
        say(f"gate 1  {line}")
    if _tunes_thresholds(recipe) and recipe.gate.split == "dev":
        say("gate 1  thresholds are tuned on dev too, so scores on dev are optimistic")
    gate.require("gate 1 (student in torch)", results)


def _tunes_thresholds(recipe: Recipe) -> bool:
    return recipe.data.traits.has_label_sets and recipe.evaluate.thresholds == "tuned"


STAGE = Stage(
    name="evaluate",
    version=4,
    inputs=lambda recipe: ("data", *model_stages(recipe).values()),
    settings=_settings,
    make=_make,
    check=_check,
)
