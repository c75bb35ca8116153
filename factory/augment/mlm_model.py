"""A BERT that fills in masked words: opened, or refused with what it lacks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from factory.data.messages import first_few
from factory.errors import RecipeError, first_line
from factory.models.source import ModelSource

HEAD = "cls.predictions."


@dataclass(frozen=True, slots=True)
class MaskedLanguageModel:
    """A BertForMaskedLM in eval mode on `device`, and its fast tokenizer."""

    model: Any
    tokenizer: Any
    device: str


def load_mlm(source: ModelSource, key: str, device: str) -> MaskedLanguageModel:
    """Open a BERT with its masked-language-model head.

    Args:
        key: the recipe key that names the model, for messages.

    Raises:
        RecipeError: not found, no BERT, without such a head or other weights, or without a fast
            tokenizer that has a mask token.
    """
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoTokenizer, BertForMaskedLM

    place = {"revision": source.revision}
    try:
        config = AutoConfig.from_pretrained(source.location, **place)
        if config.model_type != "bert":
            problem = f"{source.location} is a {config.model_type} model; a BERT is needed"
            raise RecipeError(key, [problem])
        tokenizer = AutoTokenizer.from_pretrained(source.location, **place)
        config.is_decoder = False
        model, loading = BertForMaskedLM.from_pretrained(
            source.location, config=config, output_loading_info=True, **place
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        problem = (
            f"{source.location} cannot be loaded: {first_line(error)}. Give a hub id (needs the "
            "network once), a folder with config.json, weights and tokenizer.json, or package:NAME"
        )
        raise RecipeError(key, [problem]) from error
    _check_tokenizer(tokenizer, config, source, key)
    _check_weights(loading["missing_keys"], config, source, key)
    return MaskedLanguageModel(model.eval().to(device), tokenizer, device)


def _check_weights(missing: Iterable[str], config: Any, source: ModelSource, key: str) -> None:
    # the decoder's bias is cls.predictions.bias, its weights mostly the word embeddings
    elsewhere = {f"{HEAD}decoder.bias"}
    if config.tie_word_embeddings:
        elsewhere.add(f"{HEAD}decoder.weight")
    names = sorted(name for name in missing if name not in elsewhere)
    body = [name for name in names if not name.startswith(HEAD)]
    if body:
        problem = f"{source.location} is not a complete BERT: {first_few(body)} missing"
        raise RecipeError(key, [problem])
    if names:
        problem = (
            f"{source.location} has no masked-language-model head ({first_few(names)} missing), "
            f"so it cannot propose words. Set {key} to a checkpoint that has one, such as "
            f"google-bert/bert-base-uncased, or remove {key}: the teacher's embeddings then "
            "propose the words"
        )
        raise RecipeError(key, [problem])


def _check_tokenizer(tokenizer: Any, config: Any, source: ModelSource, key: str) -> None:
    problem = None
    if not tokenizer.is_fast:
        problem = "has no fast tokenizer (tokenizer.json), which places of words are taken from"
    elif tokenizer.mask_token_id is None:
        problem = "has a tokenizer without a mask token, so nothing can be masked"
    elif tokenizer.pad_token_id is None:
        problem = "has a tokenizer without a padding token, so rows cannot be batched"
    elif len(tokenizer) > config.vocab_size:
        problem = (
            f"has a tokenizer of {len(tokenizer):,} pieces and embeddings for only "
            f"{config.vocab_size:,}: they belong to different models"
        )
    if problem is not None:
        raise RecipeError(key, [f"{source.location} {problem}; name another model"])
