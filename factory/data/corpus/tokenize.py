"""Tokenize the raw corpus of general distillation with the base teacher's tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from factory.data.corpus.reading import HEADLINE, read_pieces
from factory.data.corpus.shards import RowLayout, Tokenize, write_shards
from factory.data.messages import count
from factory.errors import DataError, RecipeError, TeacherError, first_line
from factory.models.source import ModelSource
from factory.recipe.training import GeneralSettings


def make_corpus(
    directory: Path, settings: GeneralSettings, source: ModelSource, base_directory: Path
) -> dict[str, Any]:
    """Write the corpus of a recipe as packed rows below `directory`.

    Args:
        directory: may contain finished shards of an interrupted run.
        source: the base teacher, whose tokenizer is used.

    Returns:
        Facts: documents, tokens (separators between documents included), rows, shards.

    Raises:
        DataError: the corpus has no text or cannot be read.
        TeacherError: the teacher is not a BERT or has no fast tokenizer.
        RecipeError: the teacher reads fewer tokens than `general.max_length`.
    """
    load_config(source, settings.max_length)
    tokenizer = load_tokenizer(source)
    pieces = read_pieces(settings, base_directory)
    layout = row_layout(tokenizer, settings.max_length)
    index = write_shards(directory, pieces, _tokenize_with(tokenizer), layout, settings.max_tokens)
    if not index["tokens"]:
        problem = f"{corpus_name(settings)} contains no text"
        raise DataError(HEADLINE, [problem])
    return {
        "documents": index["documents"],
        "tokens": index["tokens"],
        "rows": sum(index["shards"]),
        "shards": len(index["shards"]),
    }


def check_corpus(rows: int, settings: GeneralSettings) -> None:
    """Check that a corpus has at least one batch of rows.

    Raises:
        DataError: it has fewer rows than `general.batch_size`.
    """
    if rows < settings.batch_size:
        problem = (
            f"{corpus_name(settings)} has {count(rows, 'row')} of {settings.max_length} tokens, "
            f"fewer than general.batch_size = {settings.batch_size}; add text, or lower "
            "general.batch_size or general.max_length"
        )
        if settings.max_tokens is not None:
            problem += f" (general.max_tokens = {settings.max_tokens})"
        raise DataError(HEADLINE, [problem])


def corpus_name(settings: GeneralSettings) -> str:
    """The corpus as the recipe names it, for messages."""
    return settings.hub if settings.hub is not None else ", ".join(settings.corpus_names)


def load_config(source: ModelSource, max_length: int) -> Any:
    """Load the base teacher's configuration.

    Raises:
        TeacherError: it cannot be loaded, or is not a BERT.
        RecipeError: it reads fewer tokens than `general.max_length`.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source.location, revision=source.revision)
    except (OSError, ValueError) as error:
        raise TeacherError(
            f"the base teacher cannot be loaded from {source.location}: {first_line(error)}"
        ) from error
    if config.model_type != "bert":
        raise TeacherError(
            f"{source.location} is a {config.model_type} model; the base teacher must be a BERT"
        )
    longest = config.max_position_embeddings
    if max_length > longest:
        problem = f"{max_length}, but the base teacher reads at most {longest} tokens"
        raise RecipeError("general.max_length", [problem])
    return config


def load_tokenizer(source: ModelSource) -> Any:
    """Load the base teacher's fast tokenizer.

    Raises:
        TeacherError: it cannot be loaded, is slow, or lacks [CLS] or [SEP].
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source.location, revision=source.revision)
    except (OSError, ValueError) as error:
        raise TeacherError(
            f"the tokenizer of {source.location} cannot be loaded: {first_line(error)}"
        ) from error
    if not tokenizer.is_fast:
        raise TeacherError(f"{source.location} has no fast tokenizer (tokenizer.json)")
    if None in (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id):
        raise TeacherError(f"the tokenizer of {source.location} lacks [CLS], [SEP] or [PAD]")
    return tokenizer


def row_layout(tokenizer: Any, max_length: int) -> RowLayout:
    """The format of packed rows for a tokenizer."""
    small = len(tokenizer) <= 2**16
    return RowLayout(
        max_length,
        tokenizer.cls_token_id,
        tokenizer.sep_token_id,
        tokenizer.pad_token_id,
        "uint16" if small else "uint32",
    )


def _tokenize_with(tokenizer: Any) -> Tokenize:
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()

    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        # without offsets, on all cores
        encodings = backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    return tokenize
