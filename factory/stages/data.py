"""Stage data: read the recipe's labelled data, check it, split it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from factory.data.load import check_batch, load_dataset
from factory.evaluation.gate import check_labels
from factory.recipe.recipe import Recipe
from factory.stages.sources import Sources
from factory.stages.stage import Facts, Run, Stage, section

# The content of files counts, not their paths; the other keys belong to later stages.
NOT_READ_HERE = (
    "max_length", "train", "dev", "test", "unlabelled", "unlabelled_split", "unlabelled_limit",
)  # fmt: skip


def _settings(recipe: Recipe, sources: Sources) -> dict[str, Any]:
    return {"data": section(recipe, "data", *NOT_READ_HERE), "source": sources.data}


def _make(output: Path, run: Run) -> Facts:
    from factory.data.dataset import write_dataset
    from factory.runtime.environment import scratch_directory
    from factory.runtime.progress import say

    with scratch_directory(output) as scratch:
        dataset, facts = load_dataset(run.recipe.data, run.base_directory, scratch, say)
    write_dataset(dataset, output)
    return facts


def _check(run: Run) -> None:
    """Reject data that the later stages cannot use, before anything is trained."""
    recipe, dataset = run.recipe, run.dataset
    fine_tune = recipe.teacher.batch_size if recipe.teacher.fine_tune else 1
    check_batch(len(dataset.train), max(recipe.distill.batch_size, fine_tune), "train")
    check_labels(recipe.gate, recipe.metric, dataset.labels)


STAGE = Stage(
    name="data",
    version=2,
    inputs=lambda recipe: (),
    settings=_settings,
    make=_make,
    check=_check,
)
