"""Stage corpus: tokenize and pack the raw text of general distillation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from factory.data.load import check_batch
from factory.recipe.recipe import Recipe
from factory.stages.sources import Sources
from factory.stages.stage import Facts, Run, Stage

READING = frozenset({"documents", "text", "max_tokens", "max_length"})


def wanted(recipe: Recipe) -> bool:
    """Whether the recipe names a corpus."""
    return recipe.general is not None


def _settings(recipe: Recipe, sources: Sources) -> dict[str, Any]:
    assert recipe.general is not None, "wanted"
    return {
        "general": recipe.general.model_dump(mode="json", include=set(READING)),
        "source": sources.corpus,
        "model": sources.teacher.identity,
    }


def _make(output: Path, run: Run) -> Facts:
    from factory.data.corpus import make_corpus

    assert run.recipe.general is not None, "wanted"
    return make_corpus(output, run.recipe.general, run.sources.teacher, run.base_directory)


def _check(run: Run) -> None:
    """Reject a corpus smaller than one batch."""
    general = run.recipe.general
    assert general is not None, "wanted"
    what = f"general distillation (rows of {general.max_length} tokens)"
    check_batch(run.artifacts["corpus"].facts["rows"], general.batch_size, what)


STAGE = Stage(
    name="corpus",
    version=1,
    inputs=lambda recipe: (),
    settings=_settings,
    make=_make,
    wanted=wanted,
    check=_check,
)
