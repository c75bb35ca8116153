"""Stage prune: remove the least important neurons of the student, then train it to recover."""

from __future__ import annotations

from pathlib import Path

from factory.stages.stage import Facts, Run, Stage, section


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


STAGE = Stage(
    name="prune",
    version=4,
    inputs=lambda recipe: ("data", "unlabelled", "teacher", "augment", "distill"),
    # the settings of the training are those of the distill stage, an input
    settings=lambda recipe, sources: {"prune": section(recipe, "prune")},
    make=_make,
    wanted=lambda recipe: recipe.prune is not None,
    on_every_rank=True,
)
