"""Stage prune: remove the least important neurons of the distilled student, and let it recover."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from factory.recipe.recipe import Recipe
from factory.stages.sources import Sources
from factory.stages.stage import Facts, Run, Stage, section


def _wanted(recipe: Recipe) -> bool:
    return recipe.prune is not None


def _inputs(_recipe: Recipe) -> tuple[str, ...]:
    return ("data", "unlabelled", "teacher", "augment", "distill")


def _settings(recipe: Recipe, _sources: Sources) -> dict[str, Any]:
    # how the student learns is a setting of the distill stage, an input
    return {"prune": section(recipe, "prune")}


def _make(output: Path, run: Run) -> Facts:
    from factory.distill.prune import prune

    assert run.recipe.prune is not None, "wanted"
    distilled = run.artifacts["distill"]
    return prune(
        output,
        distilled.directory,
        run.open_model(distilled),
        run.open_model(run.artifacts["teacher"]),
        run.dataset.train,
        run.recipe.prune,
        run.recipe.distill,
        run.augmented(),
        run.unlabelled(),
    )


STAGE = Stage("prune", 4, _inputs, _settings, _make, _wanted, on_every_rank=True)
