"""Stage teacher: fine-tune a BERT on the recipe's data, or adopt one that already is fine-tuned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from factory.recipe.recipe import Recipe
from factory.stages.sources import Sources
from factory.stages.stage import Facts, Run, Stage, section


def _settings(recipe: Recipe, sources: Sources) -> dict[str, Any]:
    return {
        "teacher": section(recipe, "teacher", "model", "revision", "min_margin"),
        "data": {"max_length": recipe.data.max_length},
        "model": sources.teacher.identity,
    }


def _make(output: Path, run: Run) -> Facts:
    from factory.runtime.distributed import pick_device
    from factory.teacher.fine_tune import make_teacher

    return make_teacher(
        output,
        run.sources.teacher,
        run.recipe.teacher,
        run.dataset,
        run.recipe.data.max_length,
        pick_device(run.device),
        # these starts take weights or the vocabulary from the teacher
        only_bert=run.recipe.student.start in ("teacher", "random"),
    )


def _check(run: Run) -> None:
    """Reject a teacher that is not better than chance."""
    from factory.teacher.fine_tune import check_teacher

    facts = run.artifacts["teacher"].facts
    check_teacher(facts, run.dataset, run.recipe.teacher.min_margin)


STAGE = Stage(
    name="teacher",
    version=5,
    inputs=lambda recipe: ("data",),
    settings=_settings,
    make=_make,
    check=_check,
    on_every_rank=True,
)
