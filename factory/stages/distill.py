"""Stage distill: task distillation, from the teacher and the transfer set to the student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from factory.models.source import ModelSource
from factory.recipe.recipe import Recipe
from factory.stages.sources import Sources
from factory.stages.stage import Facts, Run, Stage, section


def inputs(recipe: Recipe) -> tuple[str, ...]:
    """The teacher, the transfer set, and the general student if the student starts from it."""
    start = ("general",) if recipe.student.start == "general" else ()
    return ("data", "unlabelled", "teacher", "augment", *start)


def settings(recipe: Recipe, sources: Sources) -> dict[str, Any]:
    """The settings that decide the student's weights."""
    start = sources.start
    return {
        "student": section(recipe, "student", *(("start", "revision") if start else ())),
        "distill": section(recipe, "distill", "baseline", "baseline_learning_rate"),
        "data": {"max_length": recipe.data.max_length},
        "start": start.identity if start else None,
    }


def start_of(run: Run) -> ModelSource | None:
    """The checkpoint the student starts from: the recipe's, the general student, or none."""
    general = run.artifacts.get("general")
    if general is None:
        return run.sources.start
    return ModelSource(str(general.directory / "model"), None, f"general:{general.fingerprint}")


def _make(output: Path, run: Run) -> Facts:
    from factory.distill.tinybert import distill

    recipe = run.recipe
    return distill(
        output,
        run.open_model(run.artifacts["teacher"]),
        run.dataset.train,
        recipe.student,
        start_of(run),
        recipe.distill,
        run.augmented(),
        run.unlabelled(),
    )


STAGE = Stage("distill", 6, inputs=inputs, settings=settings, make=_make, on_every_rank=True)
