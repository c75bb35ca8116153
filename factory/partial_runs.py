"""Runs that end before the bundle: general distillation, a masked language model, augmentation."""

from __future__ import annotations

from pathlib import Path

from factory import stages
from factory.augment_steps import AugmentSteps, find_mlm_start, make_mlm_step
from factory.building import Build, announcing_build, held, require_same_work
from factory.data.dataset import Dataset
from factory.errors import RecipeError
from factory.general_steps import find_general_steps
from factory.graph import Graph, make_graph
from factory.recipe.recipe import Recipe
from factory.stage_groups import (
    build_augmented,
    build_data,
    build_general,
    build_mlm,
    build_teacher,
    build_unlabelled,
)
from factory.store import Artifact, Store


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


def run_mlm(recipe: Recipe, base_directory: Path, store: Store, device: str = "auto") -> Path:
    """Train the masked language model of section [mlm] on the recipe's text, nothing else.

    Returns:
        The model's folder in Hugging Face format; it can be an `augment.mlm`.

    Raises:
        FactoryError: a stage failed.
    """
    graph = make_graph(recipe, base_directory)
    start = find_mlm_start(recipe, base_directory, graph.teacher_source)
    step = make_mlm_step(recipe, start, graph.data, graph.unlabelled)
    require_same_work(step.fingerprint)
    with held(store):
        build = announcing_build(store, recipe.name)
        _, dataset = build_data(build, graph.data, recipe, base_directory)
        unlabelled = build_unlabelled(build, graph.unlabelled, recipe, base_directory, dataset)
        mlm = build_mlm(build, step, recipe, start, dataset(), unlabelled, device)
    assert mlm is not None, "its step is there"
    return mlm.directory / "model"


def run_augment(recipe: Recipe, base_directory: Path, store: Store, device: str = "auto") -> Path:
    """Make the variants of the training rows and what they need, nothing else.

    Returns:
        The folder of Parquet shards.

    Raises:
        FactoryError: the recipe has no section [augment], or a stage failed.
    """
    graph, steps = _augment_graph(recipe, base_directory)
    require_same_work(steps.augment.fingerprint)
    with held(store):
        build = announcing_build(store, recipe.name)
        dataset, unlabelled, teacher = _before_augmenting(
            build, graph, recipe, base_directory, device
        )
        augmented = build_augmented(build, graph, recipe, dataset, unlabelled, teacher, device)
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
    """Some training rows before and after, as the whole run would make them; writes no variants.

    Args:
        count: how many rows.
        colours: mark changed words in colour too.

    Raises:
        FactoryError: as `run_augment`.
    """
    from factory.augment.preview import preview_lines

    graph, steps = _augment_graph(recipe, base_directory)
    assert recipe.augment is not None, "its step is there"
    with held(store):
        build = announcing_build(store, recipe.name)
        dataset, unlabelled, teacher = _before_augmenting(
            build, graph, recipe, base_directory, device
        )
        start = steps.sources.mlm_start
        mlm = build_mlm(build, steps.mlm, recipe, start, dataset, unlabelled, device)
        tools = stages.open_tools(recipe, graph, mlm, teacher, device)
        return preview_lines(dataset.train, recipe.augment, tools, count, colours=colours)


def _augment_graph(recipe: Recipe, base_directory: Path) -> tuple[Graph, AugmentSteps]:
    graph = make_graph(recipe, base_directory)
    if graph.augmentation is None:
        raise RecipeError("augment", ["this recipe has no section [augment]"])
    return graph, graph.augmentation


def _before_augmenting(
    build: Build, graph: Graph, recipe: Recipe, base_directory: Path, device: str
) -> tuple[Dataset, Artifact | None, Artifact | None]:
    """Data, unlabelled text, and the teacher where it filters."""
    _, dataset = build_data(build, graph.data, recipe, base_directory)
    unlabelled = build_unlabelled(build, graph.unlabelled, recipe, base_directory, dataset)
    teacher = None
    if recipe.augment is not None and recipe.augment.filter == "teacher":
        teacher = build_teacher(build, graph, recipe, dataset(), device)
    return dataset(), unlabelled, teacher
