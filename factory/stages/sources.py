"""What a recipe names outside its store: data files, models, word vectors, an older bundle."""

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
    """Everything that was found, identified by content or by name and revision on the hub.

    What the recipe does not name, or the stages to run do not read, is None.
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
        """The recipe's teacher before any fine-tuning; every stage after the data needs it."""
        assert self.base_teacher is not None, "looked for with the stages that read it"
        return self.base_teacher


def find_sources(recipe: Recipe, base_directory: Path, stages: Set[str]) -> Sources:
    """Look for what some stages read, without loading or downloading anything.

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

    found = Sources(
        data=find("data" in stages, lambda: source_identity(recipe.data, base_directory)),
        unlabelled=find(
            "unlabelled" in stages, lambda: unlabelled_identity(recipe.data, base_directory)
        ),
        corpus=find("corpus" in stages, lambda: _corpus(recipe, base_directory)),
        base_teacher=find(
            bool(stages - {"data", "unlabelled"}), lambda: _teacher(recipe, base_directory)
        ),
        start=find("distill" in stages, lambda: _start(recipe, base_directory)),
        augment=find("augment" in stages, lambda: find_augment_sources(recipe, base_directory)),
        predecessor=find("bundle" in stages, lambda: find_predecessor(recipe, base_directory)),
    )
    if len(problems) == 1:
        raise problems[0]
    if problems:
        lines = [f"{error.headline}: {line}" for error in problems for line in error.problems]
        raise RecipeError("files or models of the recipe are missing", lines)
    return found


def _teacher(recipe: Recipe, base_directory: Path) -> ModelSource:
    teacher = recipe.teacher
    return find_model(teacher.model, base_directory, "teacher.model", teacher.revision)


def _corpus(recipe: Recipe, base_directory: Path) -> Identity:
    assert recipe.general is not None, "the corpus stage is wanted"
    return corpus_identity(recipe.general, base_directory)


def _start(recipe: Recipe, base_directory: Path) -> ModelSource | None:
    """The checkpoint the student starts from; None for the starts that need none."""
    start = recipe.student.start
    if start in ("teacher", "random", "general"):
        return None
    return find_model(start, base_directory, "student.start", recipe.student.revision)
