"""Stage bundle: assemble the bundle; gate 2 scores every form as served and selects one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from factory.recipe.recipe import Recipe
from factory.stages import quantize
from factory.stages.sources import Sources
from factory.stages.stage import Facts, Run, Stage, model_stages, section


def _inputs(recipe: Recipe) -> tuple[str, ...]:
    return ("data", *model_stages(recipe).values(), "evaluate", "trim", "export", "quantize")


def _settings(recipe: Recipe, sources: Sources) -> dict[str, Any]:
    old = sources.predecessor
    return {
        "name": recipe.name,
        "gate": {
            **section(recipe, "gate"),
            "predecessor": None if old is None else old.identity,
        },
        "teacher": {"min_margin": recipe.teacher.min_margin},
        "quantize": {"forms": recipe.quantize.forms},
        "target": section(recipe, "target"),
        "card": section(recipe, "card"),
    }


def _make(output: Path, run: Run) -> Facts:
    from factory.bundle.select import ship

    return ship(
        output,
        run.keys["bundle"],
        run.recipe,
        run.dataset,
        run.models,
        run.artifacts,
        quantize.form_files(run),
        run.sources.predecessor,
    )


STAGE = Stage("bundle", 6, inputs=_inputs, settings=_settings, make=_make)
