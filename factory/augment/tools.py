"""What augmentation works with: who proposes words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from factory.augment.mlm_model import MaskedLanguageModel, load_mlm
from factory.augment.neighbours import Neighbours
from factory.augment.sources import AugmentSources
from factory.errors import RecipeError, first_line
from factory.models.source import ModelSource
from factory.recipe.recipe import Recipe


@dataclass(frozen=True, slots=True)
class AugmentTools:
    """Models and word lists.

    Args:
        tokenizer: the teacher's, which with `max_length` says what is seen of a row.
        mlm: the model of the source "mlm"; where there is one, it also says what a word is.
        neighbours: the sources "vectors" and "embeddings", those that the recipe names.
    """

    tokenizer: Any
    max_length: int
    mlm: MaskedLanguageModel | None
    neighbours: Mapping[str, Neighbours]


def open_tools(
    recipe: Recipe, sources: AugmentSources, teacher_source: ModelSource, device: str
) -> AugmentTools:
    """Open what the recipe names.

    Args:
        teacher_source: the teacher before fine-tuning, whose embeddings give neighbours.

    Raises:
        RecipeError: a model that cannot be loaded, or lacks what it is needed for.
        DataError: a file of word vectors that is none.
    """
    settings = recipe.augment
    assert settings is not None, "its step is there"
    mlm = None
    if sources.mlm is not None:
        mlm = load_mlm(sources.mlm, "augment.mlm", device)
    neighbours: dict[str, Neighbours] = {}
    if "vectors" in settings.source_order:
        from factory.augment.vectors_file import vector_neighbours

        assert sources.vectors is not None, "checked by the recipe"
        neighbours["vectors"] = vector_neighbours(sources.vectors, settings.vectors_limit)
    tokenizer = _load_tokenizer(teacher_source)
    if "embeddings" in settings.source_order:
        neighbours["embeddings"] = _embeddings_of(teacher_source, tokenizer)
    return AugmentTools(tokenizer, recipe.data.max_length, mlm, neighbours)


def _load_tokenizer(source: ModelSource) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source.location, revision=source.revision)
    except (OSError, ValueError) as error:
        problem = f"the tokenizer of {source.location} cannot be loaded: {first_line(error)}"
        raise RecipeError("teacher.model", [problem]) from error
    if not tokenizer.is_fast:
        problem = f"{source.location} has no fast tokenizer, which places of words are taken from"
        raise RecipeError("teacher.model", [problem])
    return tokenizer


def _embeddings_of(source: ModelSource, tokenizer: Any) -> Neighbours:
    from safetensors import SafetensorError
    from transformers import AutoModel

    from factory.augment.neighbours import embedding_neighbours

    try:
        model = AutoModel.from_pretrained(source.location, revision=source.revision)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        problem = f"{source.location} cannot be loaded: {first_line(error)}"
        raise RecipeError("teacher.model", [problem]) from error
    return embedding_neighbours(model, tokenizer)
