"""Stage general: distil the base teacher over the corpus, before any task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from factory.recipe.recipe import Recipe
from factory.stages import corpus
from factory.stages.sources import Sources
from factory.stages.stage import Facts, Run, Stage, section

# Keys that define the corpus: its location and format.
CORPUS_KEYS = ("corpus", "hub", "config", "revision", "split", *sorted(corpus.READING))


def _settings(recipe: Recipe, sources: Sources) -> dict[str, Any]:
    return {
        "general": section(recipe, "general", *CORPUS_KEYS),
        "student": section(recipe, "student", "start", "revision"),
        "distill": {"layer_map": recipe.distill.layer_map},
        "model": sources.teacher.identity,
    }


def _make(output: Path, run: Run) -> Facts:
    from factory.data.shards import open_rows
    from factory.distill.general import general_distill, load_base_teacher
    from factory.runtime.distributed import pick_device

    assert run.recipe.general is not None, "wanted"
    device = pick_device(run.device)
    teacher = load_base_teacher(run.sources.teacher, run.recipe.general, device)
    rows = open_rows(run.artifacts["corpus"].directory)
    return general_distill(output, teacher, rows, run.recipe)


STAGE = Stage(
    name="general",
    version=3,
    inputs=lambda recipe: ("corpus",),
    settings=_settings,
    make=_make,
    wanted=corpus.wanted,
    on_every_rank=True,
)
