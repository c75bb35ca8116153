"""Stage bundle: assemble what ships; gate 2 scores every form as served and chooses one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from factory.recipe.recipe import Recipe
from factory.stages import quantize
from factory.stages.sources import Sources
from factory.stages.stage import Facts, Run, Stage, model_stages, section
from factory.store import Artifact


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
        run.keys["bundle"].fingerprint,
        run.recipe,
        run.dataset,
        _artifacts_by_role(run),
        quantize.form_files(run),
        run.sources.predecessor,
    )


def _artifacts_by_role(run: Run) -> dict[str, Artifact]:
    artifacts = {
        "data": run.artifacts["data"],
        **run.models,
        "evaluation": run.artifacts["evaluate"],
        "onnx": run.artifacts["export"],
    }
    return artifacts | ({"trimmed": run.shipped} if "trim" in run.artifacts else {})


STAGE = Stage("bundle", 5, inputs=_inputs, settings=_settings, make=_make)
