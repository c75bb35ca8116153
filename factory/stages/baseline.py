"""Stage baseline: train the same student on hard labels alone, to measure the gain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from factory.recipe.recipe import Recipe
from factory.stages import distill
from factory.stages.sources import Sources
from factory.stages.stage import Facts, Run, Stage


def _settings(recipe: Recipe, sources: Sources) -> dict[str, Any]:
    return {
        **distill.settings(recipe, sources),
        "baseline": recipe.distill.baseline,
        "baseline_learning_rate": recipe.distill.baseline_learning_rate,
    }


def _make(output: Path, run: Run) -> Facts:
    from factory.distill.baseline import train_baseline

    recipe, augmented, unlabelled = run.recipe, run.augmented(), run.unlabelled()
    return train_baseline(
        output,
        run.open_model(run.artifacts["teacher"]),
        run.dataset.train,
        recipe.student,
        distill.start_of(run),
        recipe.distill,
        0 if augmented is None else len(augmented.inputs),
        0 if unlabelled is None else len(unlabelled),
        recipe.teacher.class_weights == "balanced",
    )


STAGE = Stage(
    name="baseline",
    version=7,
    inputs=distill.inputs,
    settings=_settings,
    make=_make,
    wanted=lambda recipe: recipe.distill.baseline != "off",
    on_every_rank=True,
)
