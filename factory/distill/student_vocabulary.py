"""Whose vocabulary the student reads with: the teacher's, or that of its own checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from factory.errors import RecipeError, first_line
from factory.models.classifier import TorchClassifier
from factory.models.source import ModelSource
from factory.recipe.training import DistillSettings, StudentSettings


@dataclass(frozen=True, slots=True)
class StudentVocabulary:
    """The student's tokenizer and what of its shape belongs to it.

    Args:
        config: configuration that vocabulary size, positions and token types are taken from.
        logits_only: why the teacher's logits are all the student can learn from; None when layers
            can be compared.
    """

    tokenizer: Any
    config: Any
    logits_only: str | None


def student_vocabulary(
    settings: StudentSettings, source: ModelSource | None, teacher: TorchClassifier
) -> StudentVocabulary:
    """The teacher's vocabulary unless the student's checkpoint has another.

    Vocabularies are compared piece by piece. A checkpoint without a tokenizer is taken to have the
    teacher's. Layers can be compared when both read the same tokens and both are BERTs.

    Args:
        source: the checkpoint when `settings.start` names one, else None.

    Raises:
        RecipeError: a teacher that is no BERT and no checkpoint with a tokenizer to start from, or
            a checkpoint that reads fewer tokens than `data.max_length`.
    """
    config = teacher.model.config
    is_bert = config.model_type == "bert"
    if source is None:
        if not is_bert:
            raise RecipeError("student.start", [_needs_checkpoint(settings.start, config)])
        return StudentVocabulary(teacher.tokenizer, config, None)
    tokenizer = _load_tokenizer(source)
    if tokenizer is None and not is_bert:
        raise RecipeError("student.start", [_needs_tokenizer(source, config)])
    same = tokenizer is None or tokenizer.get_vocab() == teacher.tokenizer.get_vocab()
    if same and is_bert:
        return StudentVocabulary(teacher.tokenizer, config, None)
    own_config = _load_config(source)
    longest = own_config.max_position_embeddings
    if teacher.max_length > longest:
        problem = (
            f"{teacher.max_length}, but the student's checkpoint {source.location} reads at most "
            f"{longest} tokens; lower it to {longest} or less"
        )
        raise RecipeError("data.max_length", [problem])
    reason = (
        f"the teacher is a {config.model_type} model, whose layers are not the student's kind"
        if same
        else "the student's vocabulary is not the teacher's"
    )
    return StudentVocabulary(tokenizer, own_config, reason)


def without_intermediate(settings: DistillSettings, reason: str) -> DistillSettings:
    """The settings of a student that learns from logits alone.

    Raises:
        RecipeError: then nothing would be left to learn from.
    """
    if settings.prediction.epochs == 0:
        problem = (
            f"0, but {reason}, so the intermediate phase is skipped and logits are all there is to "
            "learn from; set it above 0, or student.start to a checkpoint with the teacher's "
            "vocabulary"
        )
        raise RecipeError("distill.prediction.epochs", [problem])
    intermediate = settings.intermediate.model_copy(update={"epochs": 0.0})
    return settings.model_copy(update={"intermediate": intermediate})


def _load_tokenizer(source: ModelSource) -> Any | None:
    """The checkpoint's fast tokenizer, or None where it has none."""
    from transformers import AutoTokenizer, BertTokenizerFast

    # the second is for folders from before configurations named their model type
    for kind in (AutoTokenizer, BertTokenizerFast):
        try:
            tokenizer = kind.from_pretrained(source.location, revision=source.revision)
        except (OSError, ValueError, TypeError):
            continue
        if tokenizer.is_fast:
            return tokenizer
    return None


def _load_config(source: ModelSource) -> Any:
    from transformers import BertConfig

    try:
        found, _ = BertConfig.get_config_dict(source.location, revision=source.revision)
    except (OSError, ValueError) as error:
        problem = f"{source.location} cannot be loaded: {first_line(error)}"
        raise RecipeError("student.start", [problem]) from error
    return BertConfig.from_dict({**found, "model_type": "bert"})


def _needs_checkpoint(start: str, config: Any) -> str:
    return (
        f'"{start}", but the teacher is a {config.model_type} model and lends the student neither '
        "layers nor vocabulary; name a BERT checkpoint with its tokenizer (hub id or folder), for "
        "example huawei-noah/TinyBERT_General_4L_312D"
    )


def _needs_tokenizer(source: ModelSource, config: Any) -> str:
    return (
        f"{source.location} holds no fast tokenizer (tokenizer.json or vocab.txt), and a "
        f"{config.model_type} teacher lends none; put the checkpoint's own beside its weights"
    )
