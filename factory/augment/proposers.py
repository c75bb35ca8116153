"""The models and word lists that propose replacement words, opened as the recipe names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from factory.augment.masked_lm import MaskedLanguageModel, load_masked_lm
from factory.augment.neighbours import Neighbours
from factory.augment.sources import AugmentSources
from factory.errors import RecipeError, first_line
from factory.models.source import ModelSource
from factory.recipe.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Proposers:
    """What proposes words, and how much of a row a student sees.

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
    recipe: Recipe, sources: AugmentSources, teacher_source: ModelSource, device: str
) -> Proposers:
    """Open the models and files that the recipe names.

    Args:
        teacher_source: the teacher before fine-tuning, whose embeddings give neighbours.

    Raises:
        RecipeError: a model cannot be loaded, or lacks a required part.
        DataError: the file of word vectors cannot be read.
    """
    settings = recipe.augment
    assert settings is not None, "the recipe has a section [augment]"
    mlm = None if sources.mlm is None else load_masked_lm(sources.mlm, device)
    neighbours: dict[str, Neighbours] = {}
    if "vectors" in settings.source_order:
        from factory.augment.word_vectors import vector_neighbours

        assert sources.vectors is not None, "checked by the recipe"
        neighbours["vectors"] = vector_neighbours(sources.vectors, settings.vectors_limit)
    tokenizer = _load_tokenizer(teacher_source)
    if "embeddings" in settings.source_order:
        neighbours["embeddings"] = _embeddings_of(teacher_source, tokenizer)
    return Proposers(tokenizer, recipe.data.max_length, mlm, neighbours)


def _load_tokenizer(source: ModelSource) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source.location, revision=source.revision)
    except (OSError, ValueError) as error:
        problem = f"cannot load the tokenizer of {source.location}: {first_line(error)}"
        raise RecipeError("teacher.model", [problem]) from error
    if not tokenizer.is_fast:
        problem = (
            f"{source.location} has no fast tokenizer (tokenizer.json), required to find words"
        )
        raise RecipeError("teacher.model", [problem])
    return tokenizer


def _embeddings_of(source: ModelSource, tokenizer: Any) -> Neighbours:
    from safetensors import SafetensorError
    from transformers import AutoModel

    from factory.augment.neighbours import embedding_neighbours

    try:
        model = AutoModel.from_pretrained(source.location, revision=source.revision)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        problem = f"cannot load {source.location}: {first_line(error)}"
        raise RecipeError("teacher.model", [problem]) from error
    return embedding_neighbours(model, tokenizer)
