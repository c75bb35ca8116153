"""The sources of a recipe: data files, models, word vectors, a predecessor bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from factory.augment.proposers import AugmentSources, find_augment_sources
from factory.data.corpus import corpus_identity
from factory.data.source import source_identity, unlabelled_identity
from factory.errors import ProblemsError, RecipeError
from factory.evaluation.predecessor import Predecessor, find_predecessor
from factory.models.source import ModelSource, find_model
from factory.recipe.recipe import Recipe

Found = TypeVar("Found")
Identity = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources of a run, identified by content, or by name and revision on the hub.

    None: not named in the recipe, or not read by the stages of the run.
    """

    data: Identity | None
    unlabelled: Identity | None
    corpus: Identity | None
    base_teacher: ModelSource | None
    start: ModelSource | None
    augment: AugmentSources | None
    predecessor: Predecessor | None

    @property
    def teacher(self) -> ModelSource:
        """The recipe's teacher before any fine-tuning."""
        assert self.base_teacher is not None, "found with the stages that read it"
        return self.base_teacher


def find_sources(recipe: Recipe, base_directory: Path, stages: Set[str]) -> Sources:
    """Find the sources of some stages, without loading or downloading anything.

    Args:
        base_directory: the recipe's folder; relative paths in the recipe start there.
        stages: names of the stages that will run.

    Raises:
        RecipeError, DataError: something is missing; all of it in one error.
    """
    problems: list[ProblemsError] = []

    def find(wanted: bool, look: Callable[[], Found]) -> Found | None:
        try:
            return look() if wanted else None
        except ProblemsError as error:
            problems.append(error)
            return None

    data, general, teacher, student = recipe.data, recipe.general, recipe.teacher, recipe.student
    found = Sources(
        data=find("data" in stages, lambda: source_identity(data, base_directory)),
        unlabelled=find("unlabelled" in stages, lambda: unlabelled_identity(data, base_directory)),
        corpus=None
        if general is None
        else find("corpus" in stages, lambda: corpus_identity(general, base_directory)),
        base_teacher=find(
            bool(stages - {"data", "unlabelled"}),
            lambda: find_model(teacher.model, base_directory, "teacher.model", teacher.revision),
        ),
        start=find(
            "distill" in stages and student.start not in ("teacher", "random", "general"),
            lambda: find_model(student.start, base_directory, "student.start", student.revision),
        ),
        augment=find("augment" in stages, lambda: find_augment_sources(recipe, base_directory)),
        predecessor=find("bundle" in stages, lambda: find_predecessor(recipe, base_directory)),
    )
    if len(problems) == 1:
        raise problems[0]
    if problems:
        lines = [f"{error.headline}: {line}" for error in problems for line in error.problems]
        raise RecipeError("files or models of the recipe are missing", lines)
    return found
