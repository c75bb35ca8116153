"""Stage unlabelled: read the text without labels that the student also learns from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from factory.recipe.recipe import Recipe
from factory.stages.sources import Sources
from factory.stages.stage import Facts, Run, Stage


def _wanted(recipe: Recipe) -> bool:
    return bool(recipe.data.unlabelled_names) or recipe.data.unlabelled_split is not None


def _settings(recipe: Recipe, sources: Sources) -> dict[str, Any]:
    # the columns to read and the seed are settings of the data stage, an input
    return {
        "data": {"unlabelled_limit": recipe.data.unlabelled_limit},
        "source": sources.unlabelled,
    }


def _make(output: Path, run: Run) -> Facts:
    from factory.data.unlabelled import load_unlabelled, write_unlabelled
    from factory.runtime.environment import scratch_directory
    from factory.runtime.progress import say

    with scratch_directory(output) as scratch:
        rows, facts = load_unlabelled(
            run.recipe.data, run.base_directory, scratch, run.dataset, say
        )
    write_unlabelled(rows, output)
    return facts


STAGE = Stage(
    name="unlabelled",
    version=1,
    inputs=lambda recipe: ("data",),
    settings=_settings,
    make=_make,
    wanted=_wanted,
)
