"""The student: a plain BERT classifier of the recipe's shape, and where its weights start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from factory.distill.checkpoint import labels_of, settle_classifier, take_projections
from factory.distill.derive import derive_student
from factory.distill.projections import load_projections
from factory.errors import RecipeError, first_line
from factory.models.classifier import TorchClassifier, UnloadableError, load_bert_classifier
from factory.models.encoding import EncodedRows, select_rows
from factory.models.source import ModelSource
from factory.recipe.training import StudentSettings
from factory.runtime.progress import say

# More calibration text makes a better start (docs/log.md) and takes time and memory in proportion.
CALIBRATION_TOKENS = 32_768


@dataclass(frozen=True, slots=True)
class StudentStart:
    """A student before training, with its training-only width projections.

    Args:
        projections: one map student hidden -> teacher hidden for the embedding output (index 0)
            and one per student layer; never exported.
    """

    model: Any
    projections: nn.ModuleList


def student_config(teacher: Any, settings: StudentSettings, vocabulary: Any = None) -> Any:
    """The student's `BertConfig`: the recipe's shape, the teacher's vocabulary and labels.

    Args:
        vocabulary: the configuration to take vocabulary, positions and token types from, when it
            is not the teacher's.
    """
    from transformers import BertConfig

    source = vocabulary or teacher.config
    return BertConfig(
        vocab_size=source.vocab_size,
        hidden_size=settings.hidden,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        intermediate_size=settings.intermediate,
        hidden_act=source.hidden_act,
        hidden_dropout_prob=settings.dropout,
        attention_probs_dropout_prob=settings.dropout,
        max_position_embeddings=source.max_position_embeddings,
        type_vocab_size=source.type_vocab_size,
        layer_norm_eps=source.layer_norm_eps,
        pad_token_id=source.pad_token_id,
        id2label=teacher.config.id2label,
        label2id=teacher.config.label2id,
        problem_type=teacher.config.problem_type,
    )


def start_student(
    settings: StudentSettings,
    source: ModelSource | None,
    teacher: TorchClassifier,
    layer_map: tuple[int, ...],
    calibration: EncodedRows,
    seed: int,
    vocabulary: Any = None,
) -> StudentStart:
    """Make the student that training begins with.

    Args:
        source: the checkpoint when `settings.start` names one, else None.
        calibration: rows of the transfer set; the teacher-derived start looks at the first of
            them, up to 32,768 tokens.
        vocabulary: see `student_config`.

    Raises:
        RecipeError: the start does not fit the recipe's shape or the teacher.
    """
    from transformers import BertForSequenceClassification

    torch.manual_seed(seed)
    config = student_config(teacher.model, settings, vocabulary)
    if source is not None:
        model = _load_checkpoint(source, config)
    else:
        model = BertForSequenceClassification(config)
    teacher_hidden = teacher.model.config.hidden_size
    projections = nn.ModuleList(
        nn.Linear(config.hidden_size, teacher_hidden) for _ in range(config.num_hidden_layers + 1)
    )
    if source is not None and not load_projections(projections, source):
        take_projections(projections, source)
    if settings.start == "teacher":
        derive_student(model, projections, teacher, layer_map, first_tokens(calibration))
    return StudentStart(model.to(teacher.device), projections.to(teacher.device))


def first_tokens(rows: EncodedRows) -> EncodedRows:
    """The first rows with at most `CALIBRATION_TOKENS` tokens together, and at least one."""
    count = max(1, int((np.cumsum(rows.lengths) <= CALIBRATION_TOKENS).sum()))
    return select_rows(rows, np.arange(count))


def _load_checkpoint(source: ModelSource, config: Any) -> Any:
    """A student whose encoder comes from a checkpoint of exactly the recipe's shape.

    Its classifier comes along when it was trained on the same labels; other heads are dropped.
    Early TinyBERT folders have no model_type in their config; they are taken for what they are.
    """
    from transformers import BertConfig

    try:
        found, _ = BertConfig.get_config_dict(source.location, revision=source.revision)
    except (OSError, ValueError) as error:
        raise RecipeError("student.start", [_not_loadable(source, first_line(error))]) from error
    found = {"model_type": "bert", **found}
    names = (
        "num_hidden_layers",
        "hidden_size",
        "num_attention_heads",
        "intermediate_size",
        "vocab_size",
        # transformers would only log what it cannot load from these, and leave it random
        "max_position_embeddings",
        "type_vocab_size",
        "model_type",
    )
    problems = [
        f"{name} is {found.get(name)} in {source.location}, "
        f"the student needs {getattr(config, name)}"
        for name in names
        if found.get(name) != getattr(config, name)
    ]
    if problems:
        raise RecipeError("student.start", problems)
    try:
        model, new = load_bert_classifier(source, config)
    except UnloadableError as error:
        raise RecipeError("student.start", [_not_loadable(source, str(error))]) from error
    _check_encoder(source, new)
    loaded = not any(name.startswith("classifier.") for name in new)
    settle_classifier(model, labels_of(found), loaded, source)
    return model


def _check_encoder(source: ModelSource, new: set[str]) -> None:
    """Refuse a checkpoint that would leave parts of the encoder random without a word."""
    lacking = sorted(name for name in new if not name.startswith(("classifier.", "bert.pooler.")))
    if lacking:
        raise RecipeError(
            "student.start",
            [
                f"{source.location} has no weights for {lacking[0]} and {len(lacking) - 1} more of "
                "the student; it is damaged, or no BERT checkpoint"
            ],
        )
    if any(name.startswith("bert.pooler.") for name in new):
        say(f"student.start {source.location}: the pooler starts new, the checkpoint has none")


def _not_loadable(source: ModelSource, reason: str) -> str:
    return (
        f"{source.location} cannot be loaded: {reason}. Give a hub id (needs the "
        'network once), a folder with config.json and weights, "teacher" or "random"'
    )
