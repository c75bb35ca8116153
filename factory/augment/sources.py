"""Where augmentation finds what proposes words: a masked language model, a file of word vectors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from factory.data.messages import missing_file
from factory.errors import RecipeError
from factory.models.source import ModelSource, find_model
from factory.recipe.recipe import Recipe


@dataclass(frozen=True, slots=True)
class AugmentSources:
    """What the recipe names to propose words.

    Args:
        mlm: the checkpoint with a masked-language-model head.
        vectors: the file of word vectors.
    """

    mlm: ModelSource | None
    vectors: Path | None


def find_augment_sources(recipe: Recipe, base_directory: Path) -> AugmentSources:
    """Look for the model and the file.

    Raises:
        RecipeError: one of them is missing.
    """
    settings = recipe.augment
    assert settings is not None, "the augment stage is wanted"
    mlm, vectors = None, None
    if settings.vectors is not None:
        vectors = base_directory / settings.vectors
        if not vectors.is_file():
            problem = missing_file("augment.vectors", settings.vectors, vectors)
            raise RecipeError("augment.vectors", [problem])
    if settings.mlm is not None:
        mlm = find_model(settings.mlm, base_directory, "augment.mlm", settings.mlm_revision)
    return AugmentSources(mlm, vectors)
