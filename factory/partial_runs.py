"""Runs that end before the bundle: general distillation and augmentation."""

from __future__ import annotations

from pathlib import Path

from factory import stages
from factory.augment_steps import AugmentSteps
from factory.building import announcing_build, held, require_same_work
from factory.errors import RecipeError
from factory.general_steps import find_general_steps
from factory.graph import Graph, make_graph
from factory.recipe.recipe import Recipe
from factory.stage_groups import (
    build_augmented,
    build_data,
    build_general,
)
from factory.store import Store


def run_general(recipe: Recipe, base_directory: Path, store: Store, device: str = "auto") -> Path:
    """Make the general student of a recipe: its corpus and general distillation, nothing else.

    Args:
        base_directory, device: as `factory.pipeline.run`.

    Returns:
        The student's folder in Hugging Face format; it can be a `student.start`.

    Raises:
        FactoryError: the recipe has no section [general], or a stage failed.
    """
    steps, teacher = find_general_steps(recipe, base_directory)
    require_same_work(steps.general.fingerprint)
    with held(store):
        build = announcing_build(store, recipe.name)
        general = build_general(build, steps, recipe, teacher, base_directory, device)
    return general.directory / "model"


def run_augment(recipe: Recipe, base_directory: Path, store: Store, device: str = "auto") -> Path:
    """Augment the training rows, nothing else.

    Returns:
        The folder of Parquet shards.

    Raises:
        FactoryError: the recipe has no section [augment], or a stage failed.
    """
    graph, steps = _augment_graph(recipe, base_directory)
    require_same_work(steps.augment.fingerprint)
    with held(store):
        build = announcing_build(store, recipe.name)
        _, dataset = build_data(build, graph.data, recipe, base_directory)
        augmented = build_augmented(build, graph, recipe, dataset(), device)
    assert augmented is not None, "its step is there"
    return augmented.directory


def preview_augmentation(
    recipe: Recipe,
    base_directory: Path,
    store: Store,
    count: int,
    device: str = "auto",
    *,
    colours: bool = False,
) -> list[str]:
    """Some training rows before and after augmentation, as a run would make them.

    Args:
        count: how many rows.
        colours: mark changed words in colour too.

    Raises:
        FactoryError: as `run_augment`.
    """
    from factory.augment.preview import preview_lines

    graph, _ = _augment_graph(recipe, base_directory)
    assert recipe.augment is not None, "its step is there"
    with held(store):
        build = announcing_build(store, recipe.name)
        _, dataset = build_data(build, graph.data, recipe, base_directory)
        proposers = stages.open_proposers(recipe, graph, device)
        return preview_lines(dataset().train, recipe.augment, proposers, count, colours=colours)


def _augment_graph(recipe: Recipe, base_directory: Path) -> tuple[Graph, AugmentSteps]:
    graph = make_graph(recipe, base_directory)
    if graph.augmentation is None:
        raise RecipeError("augment", ["this recipe has no section [augment]"])
    return graph, graph.augmentation
