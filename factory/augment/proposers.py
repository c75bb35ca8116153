"""The sources of replacement words: the models and word lists that the recipe names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory.augment.masked_lm import MaskedLanguageModel, load_masked_lm
from factory.augment.neighbours import Neighbours, embedding_neighbours
from factory.data.messages import missing_file
from factory.errors import RecipeError, first_line
from factory.models.source import ModelSource, find_model
from factory.recipe.recipe import Recipe


@dataclass(frozen=True, slots=True)
class AugmentSources:
    """The checkpoint and the file of word vectors that the recipe names, not opened yet."""

    mlm: ModelSource | None
    vectors: Path | None


def find_augment_sources(recipe: Recipe, base_directory: Path) -> AugmentSources:
    """Find the model and the file.

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


@dataclass(frozen=True, slots=True)
class Proposers:
    """The sources of replacement words, and the limit of the text that a student sees.

    Args:
        tokenizer: the teacher's; with `max_length` it determines the visible part of a row.
        mlm: the model of the source "mlm"; if present, its tokenizer also splits words.
        neighbours: the sources "vectors" and "embeddings", as far as the recipe uses them.
    """

    tokenizer: Any
    max_length: int
    mlm: MaskedLanguageModel | None
    neighbours: Mapping[str, Neighbours]


def open_proposers(
    recipe: Recipe, sources: AugmentSources, teacher: ModelSource, device: str
) -> Proposers:
    """Open the models and files that the recipe names.

    Args:
        teacher: before fine-tuning; its embeddings give neighbours.

    Raises:
        RecipeError: a model cannot be loaded, or lacks a required part.
        DataError: the file of word vectors cannot be read.
    """
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoTokenizer

    settings = recipe.augment
    assert settings is not None, "the recipe has a section [augment]"
    mlm = None if sources.mlm is None else load_masked_lm(sources.mlm, device)
    neighbours: dict[str, Neighbours] = {}
    if "vectors" in settings.source_order:
        from factory.augment.word_vectors import vector_neighbours

        assert sources.vectors is not None, "checked by the recipe"
        neighbours["vectors"] = vector_neighbours(sources.vectors, settings.vectors_limit)
    try:
        tokenizer = AutoTokenizer.from_pretrained(teacher.location, revision=teacher.revision)
        if not tokenizer.is_fast:
            problem = f"{teacher.location} has no fast tokenizer (tokenizer.json)"
            raise RecipeError("teacher.model", [f"{problem}, required to find words"])
        if "embeddings" in settings.source_order:
            model = AutoModel.from_pretrained(teacher.location, revision=teacher.revision)
            neighbours["embeddings"] = embedding_neighbours(model, tokenizer)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        problem = f"cannot load {teacher.location}: {first_line(error)}"
        raise RecipeError("teacher.model", [problem]) from error
    return Proposers(tokenizer, recipe.data.max_length, mlm, neighbours)
