"""Stage general: distil the base teacher over the corpus, before any task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from factory.recipe.recipe import Recipe
from factory.stages import corpus
from factory.stages.sources import Sources
from factory.stages.stage import Facts, Run, Stage, section

# These decide the corpus: where it is, and how it is read.
OF_CORPUS = ("corpus", "hub", "config", "revision", "split", *sorted(corpus.READING))


def _inputs(_recipe: Recipe) -> tuple[str, ...]:
    return ("corpus",)


def _settings(recipe: Recipe, sources: Sources) -> dict[str, Any]:
    return {
        "general": section(recipe, "general", *OF_CORPUS),
        "student": section(recipe, "student", "start", "revision"),
        "distill": {"layer_map": recipe.distill.layer_map},
        "model": sources.teacher.identity,
    }


def _make(output: Path, run: Run) -> Facts:
    from factory.data.shards import open_rows
    from factory.distill.general import general_distill, load_base_teacher
    from factory.runtime.devices import pick_device

    assert run.recipe.general is not None, "wanted"
    device = pick_device(run.device)
    teacher = load_base_teacher(run.sources.teacher, run.recipe.general, device)
    rows = open_rows(run.artifacts["corpus"].directory)
    return general_distill(output, teacher, rows, run.recipe)


STAGE = Stage("general", 3, _inputs, _settings, _make, corpus.wanted, on_every_rank=True)
