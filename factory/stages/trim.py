"""Stage trim: a copy of the student with a smaller vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from factory.recipe.recipe import Recipe
from factory.stages.sources import Sources
from factory.stages.stage import Facts, Run, Stage, model_stages


def _settings(recipe: Recipe, _sources: Sources) -> dict[str, Any]:
    return {
        "export": {"general_pieces": recipe.export.general_pieces},
        "data": {"max_length": recipe.data.max_length},
    }


def _make(output: Path, run: Run) -> Facts:
    import shutil

    from factory.export.trim import choose_pieces, measure_trim, needed_pieces, trim_student

    recipe, dataset, augmented = run.recipe, run.dataset, run.augmented()
    source, target = run.student.directory / "model", output / "model"
    shutil.rmtree(target, ignore_errors=True)  # files of an interrupted run
    rows = [*dataset.train.inputs(), *(run.unlabelled() or ())]
    rows += [] if augmented is None else augmented.inputs
    texts = (text for row in rows for text in ((row,) if isinstance(row, str) else row))
    assert recipe.export.general_pieces is not None, "wanted"
    kept = choose_pieces(source, needed_pieces(source, texts), recipe.export.general_pieces)
    facts = trim_student(source, target, kept)
    for split in dataset.splits()[1:]:
        facts[split.name] = measure_trim(source, target, split.inputs(), recipe.data.max_length)
    return facts


STAGE = Stage(
    name="trim",
    version=2,
    inputs=lambda recipe: ("data", "unlabelled", "augment", model_stages(recipe)["student"]),
    settings=_settings,
    make=_make,
    wanted=lambda recipe: recipe.export.general_pieces is not None,
)
