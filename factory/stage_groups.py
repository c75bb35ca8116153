"""Groups of stages that a whole run and the partial runs build alike."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from factory import stages
from factory.building import Build, Facts
from factory.data.checks import check_batch
from factory.data.corpus.tokenize import check_corpus
from factory.data.dataset import Dataset, read_dataset
from factory.data.unlabelled import read_unlabelled
from factory.evaluation import gate
from factory.general_steps import GeneralSteps
from factory.graph import Graph
from factory.models.source import ModelSource
from factory.recipe.recipe import Recipe
from factory.store import Artifact, Step


def build_general(
    build: Build,
    steps: GeneralSteps,
    recipe: Recipe,
    teacher: ModelSource,
    base_directory: Path,
    device: str,
) -> Artifact:
    """The general student and the tokenized corpus behind it."""
    assert recipe.general is not None, "checked by the recipe"
    corpus = build(
        steps.corpus, lambda here: stages.make_corpus(here, recipe, teacher, base_directory)
    )
    check_corpus(corpus.facts["rows"], recipe.general)
    return build(steps.general, lambda here: stages.general(here, recipe, teacher, corpus, device))


def build_data(
    build: Build, step: Step, recipe: Recipe, base_directory: Path
) -> tuple[Artifact, Callable[[], Dataset]]:
    """The data stage, and its splits, which are read when first asked for."""
    data = build(step, lambda here: stages.make_data(here, recipe, base_directory))
    dataset = cache(lambda: read_dataset(data.directory))
    check_batch(len(dataset().train), _largest_batch(recipe), "train")
    gate.check_labels(recipe.gate, recipe.metric, dataset().labels)
    return data, dataset


def build_unlabelled(
    build: Build,
    step: Step | None,
    recipe: Recipe,
    base_directory: Path,
    dataset: Callable[[], Dataset],
) -> Artifact | None:
    """The text without labels, when there is any."""
    if step is None:
        return None
    return build(step, lambda here: stages.make_unlabelled(here, recipe, base_directory, dataset()))


def build_teacher(
    build: Build, graph: Graph, recipe: Recipe, dataset: Dataset, device: str
) -> Artifact:
    """The teacher, refused when nobody can learn from it."""
    teacher = build(
        graph.teacher, lambda here: stages.make_teacher(here, recipe, graph, dataset, device)
    )
    stages.check_teacher(teacher, dataset, recipe)
    return teacher


def build_mlm(
    build: Build,
    step: Step | None,
    recipe: Recipe,
    start: ModelSource | None,
    dataset: Dataset,
    unlabelled: Artifact | None,
    device: str,
) -> Artifact | None:
    """The masked language model trained on the recipe's text, when there is to be one."""
    if step is None or start is None:
        return None
    return build(
        step, lambda here: stages.train_mlm(here, recipe, start, dataset, unlabelled, device)
    )


def build_augmented(
    build: Build,
    graph: Graph,
    recipe: Recipe,
    dataset: Dataset,
    unlabelled: Artifact | None,
    teacher: Artifact | None,
    device: str,
) -> Artifact | None:
    """Variants of the training rows, when the recipe asks for them.

    Args:
        teacher: may be missing where it does not filter the variants.
    """
    steps = graph.augmentation
    if steps is None:
        return None
    start = steps.sources.mlm_start
    mlm = build_mlm(build, steps.mlm, recipe, start, dataset, unlabelled, device)
    tools = cache(lambda: stages.open_tools(recipe, graph, mlm, teacher, device))
    return build(steps.augment, lambda here: stages.augment(here, recipe, dataset, tools()))


def build_start(
    build: Build, graph: Graph, recipe: Recipe, base_directory: Path, device: str
) -> ModelSource | None:
    """The checkpoint the student starts from: the recipe's, a general student, or none."""
    if graph.general is None:
        return graph.start_source
    general = build_general(
        build, graph.general, recipe, graph.teacher_source, base_directory, device
    )
    folder = general.directory / "model"
    return ModelSource(str(folder), None, f"general:{general.fingerprint}")


def build_students(
    build: Build,
    graph: Graph,
    recipe: Recipe,
    dataset: Dataset,
    teacher: Artifact,
    start_source: ModelSource | None,
    augmented: Artifact | None,
    unlabelled: Artifact | None,
    device: str,
) -> dict[str, Artifact]:
    """The distilled student and, when the recipe wants them, the undistilled and a pruned one.

    A pruned student takes the student's place; the unpruned one stands beside it.
    """

    def shared_arguments() -> tuple[Any, ...]:
        open_teacher = stages.open_model(teacher, recipe, device)
        return open_teacher, dataset.train, recipe.student, start_source, recipe.distill

    def more_rows() -> tuple[Any, Any]:
        return (
            None if augmented is None else stages.read_augmented(augmented),
            None if unlabelled is None else read_unlabelled(unlabelled.directory),
        )

    students = {
        "student": build(
            graph.distill, lambda here: stages.distill(here, *shared_arguments(), *more_rows())
        )
    }
    if graph.prune is not None:
        students["unpruned"] = distilled = students["student"]
        students["student"] = build(
            graph.prune,
            lambda here: stages.prune(
                here, distilled, teacher, recipe, dataset.train, *more_rows(), device
            ),
        )
    if graph.baseline is not None:
        counts = (
            0 if augmented is None else augmented.facts["variants"],
            0 if unlabelled is None else unlabelled.facts["rows"],
        )
        weighs = recipe.teacher.class_weights == "balanced"
        students["baseline"] = build(
            graph.baseline, lambda here: stages.baseline(here, *shared_arguments(), *counts, weighs)
        )
    return students


def _largest_batch(recipe: Recipe) -> int:
    fine_tune = recipe.teacher.batch_size if recipe.teacher.fine_tune else 1
    return max(recipe.distill.batch_size, fine_tune)


def build_trimmed(
    build: Build,
    step: Step | None,
    recipe: Recipe,
    dataset: Dataset,
    student: Artifact,
    augmented: Artifact | None,
    unlabelled: Artifact | None,
) -> Artifact | None:
    """The student with fewer word pieces, when the recipe asks for it."""
    if step is None:
        return None

    def trim(here: Path) -> Facts:
        others = [] if unlabelled is None else [*read_unlabelled(unlabelled.directory)]
        others += [] if augmented is None else stages.read_augmented(augmented).inputs
        return stages.trim(here, student, recipe, dataset, others)

    return build(step, trim)
