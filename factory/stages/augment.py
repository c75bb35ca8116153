"""Stage augment: write augmented examples of the training rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from factory.recipe.recipe import Recipe
from factory.stages.sources import Sources
from factory.stages.stage import Facts, Run, Stage, section
from serving.bundle import sha256_file

if TYPE_CHECKING:
    from factory.augment.proposers import Proposers


def _settings(recipe: Recipe, sources: Sources) -> dict[str, Any]:
    found = sources.augment
    assert recipe.augment is not None, "wanted"
    assert found is not None, "found with this stage"
    settings = section(recipe, "augment", "mlm", "mlm_revision", "vectors")
    return {
        "augment": {**settings, "sources": list(recipe.augment.source_order)},
        "data": {"max_length": recipe.data.max_length},
        "model": sources.teacher.identity,
        "mlm": None if found.mlm is None else found.mlm.identity,
        "vectors": None if found.vectors is None else sha256_file(found.vectors),
    }


def _make(output: Path, run: Run) -> Facts:
    from factory.augment.run import augment

    assert run.recipe.augment is not None, "wanted"
    return augment(output, run.dataset.train, run.recipe.augment, open_augment_proposers(run))


def open_augment_proposers(run: Run) -> Proposers:
    """Open the models and word lists that propose words."""
    from factory.augment.proposers import open_proposers
    from factory.runtime.distributed import pick_device

    sources = run.sources
    assert sources.augment is not None, "found with this stage"
    return open_proposers(run.recipe, sources.augment, sources.teacher, pick_device(run.device))


STAGE = Stage(
    name="augment",
    version=3,
    # not the teacher stage: its embeddings are used as they are before fine-tuning
    inputs=lambda recipe: ("data",),
    settings=_settings,
    make=_make,
    wanted=lambda recipe: recipe.augment is not None,
    on_every_rank=True,
)
