"""The augmentation stage with its fingerprint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from factory.data.source import missing_file
from factory.errors import RecipeError
from factory.models.source import ModelSource, find_model
from factory.recipe.recipe import Recipe
from factory.store import Step
from serving.bundle import sha256_file

# Raised by hand when a stage's code makes something else from the same inputs.
AUGMENT_VERSION = 1


@dataclass(frozen=True, slots=True)
class AugmentSources:
    """What proposes words.

    Args:
        mlm: the checkpoint with a masked-language-model head, if the recipe names one.
        vectors: the file of word vectors.
    """

    mlm: ModelSource | None
    vectors: Path | None


@dataclass(frozen=True, slots=True)
class AugmentSteps:
    """The stage that augments the training rows, and what it reads."""

    augment: Step
    sources: AugmentSources

    def steps(self) -> list[Step]:
        """The stages in the order they run."""
        return [self.augment]


def find_augment_sources(recipe: Recipe, base_directory: Path) -> AugmentSources | None:
    """Find what proposes words; None for a recipe without augmentation.

    Raises:
        RecipeError: a model or file is missing.
    """
    settings = recipe.augment
    if settings is None:
        return None
    vectors = None
    if settings.vectors is not None:
        vectors = base_directory / settings.vectors
        if not vectors.is_file():
            problem = missing_file("augment.vectors", settings.vectors, vectors)
            raise RecipeError("augment.vectors", [problem])
    mlm = None
    if settings.mlm is not None:
        mlm = find_model(settings.mlm, base_directory, "augment.mlm", settings.mlm_revision)
    return AugmentSources(mlm, vectors)


def make_augment_steps(
    recipe: Recipe,
    sources: AugmentSources,
    teacher_source: ModelSource,
    data: Step,
) -> AugmentSteps:
    """Fingerprint the stage.

    Words are looked up in the teacher's embeddings as they are before any fine-tuning, so the
    stage does not read the fine-tuned teacher.
    """
    settings = recipe.augment
    assert settings is not None, "sources were found"
    chosen = settings.model_dump(mode="json", exclude={"mlm", "mlm_revision", "vectors"})
    step = Step(
        "augment",
        AUGMENT_VERSION,
        {
            "augment": {**chosen, "sources": list(settings.source_order)},
            "data": {"max_length": recipe.data.max_length},
            "model": teacher_source.identity,
            "mlm": None if sources.mlm is None else sources.mlm.identity,
            "vectors": None if sources.vectors is None else sha256_file(sources.vectors),
        },
        {"data": data.fingerprint},
    )
    return AugmentSteps(step, sources)
