"""Tiny models that are no BERT, and tokenizers with other vocabularies, all made in code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    BertTokenizerFast,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaTokenizerFast,
)

from helpers.tiny_models import FILLERS, KEYWORDS, LABELS, SPECIAL, tiny_split, tiny_tokenizer

ROBERTA_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
# The tiny vocabulary's words in another order, with no pieces: unlike `tiny_models.VOCABULARY`.
OTHER_VOCABULARY = (*SPECIAL, *FILLERS, *(word for words in KEYWORDS.values() for word in words))


def other_tokenizer() -> BertTokenizerFast:
    """A WordPiece tokenizer of 32 whole words, each with another number than in the tiny one."""
    return tiny_tokenizer(OTHER_VOCABULARY)


def byte_level_tokenizer() -> RobertaTokenizerFast:
    """A byte-level BPE trained on the tiny texts, with RoBERTa's special tokens and numbers."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=list(ROBERTA_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(tiny_split("train", 210, seed=11).texts, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return RobertaTokenizerFast(tokenizer_object=tokenizer)


def tiny_roberta(labels: tuple[str, ...] = LABELS, **changes: Any) -> Any:
    """A random RoBERTa: 2 layers, 24 wide; 34 positions, of which it can use 32."""
    fields: dict[str, Any] = {
        "vocab_size": len(byte_level_tokenizer()),
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 34,
        "type_vocab_size": 1,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "initializer_range": 0.1,
        **_named(labels),
    }
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return RobertaForSequenceClassification(RobertaConfig(**{**fields, **changes})).eval()


def tiny_distilbert(labels: tuple[str, ...], vocabulary_size: int) -> Any:
    """A random DistilBERT: 2 layers, 24 wide, 32 positions."""
    config = DistilBertConfig(
        vocab_size=vocabulary_size,
        dim=24,
        hidden_dim=48,
        n_layers=2,
        n_heads=4,
        max_position_embeddings=32,
        initializer_range=0.1,
        **_named(labels),
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return DistilBertForSequenceClassification(config).eval()


def save_foreigner(model: Any, tokenizer: PreTrainedTokenizerFast, directory: Path) -> Path:
    """Save a model with its tokenizer as a folder in the hub's format."""
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def _named(labels: tuple[str, ...]) -> dict[str, Any]:
    return {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: number for number, label in enumerate(labels)},
    }
