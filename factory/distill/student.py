"""The student: its vocabulary, a plain BERT of the recipe's shape, its start, and its files."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from factory.distill.derive import derive_student
from factory.distill.student_checkpoint import (
    labels_of,
    load_projections,
    settle_classifier,
    take_projections,
)
from factory.errors import RecipeError, TrainingError, first_line
from factory.models.classifier import TorchClassifier, UnloadableError, load_bert_classifier
from factory.models.encoding import EncodedRows, save_tokenizer, select_rows
from factory.models.source import ModelSource
from factory.recipe.training import DistillSettings, StudentSettings
from factory.runtime import distributed
from factory.runtime.progress import say
from factory.training.loss_log import LossPoint, write_losses

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
    """Make the student that training starts with.

    Args:
        source: the checkpoint when `settings.start` names one, else None.
        calibration: rows of the transfer set; the start derived from the teacher uses the first
            32,768 tokens of them.
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
    """A student whose encoder is a checkpoint of exactly the recipe's shape.

    Its classifier is kept when it was trained on the same labels; other heads are dropped.
    """
    found = _config_of(source)
    names = (
        "num_hidden_layers",
        "hidden_size",
        "num_attention_heads",
        "intermediate_size",
        "vocab_size",
        # transformers would initialize the other weights at random, with only a log message
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
        raise _not_loadable(source, error) from error
    lacking = sorted(name for name in new if not name.startswith(("classifier.", "bert.pooler.")))
    if lacking:  # transformers would leave parts of the encoder random
        problem = (
            f"{source.location} has no weights for {lacking[0]} and {len(lacking) - 1} more of "
            "the student; it is damaged, or not a BERT checkpoint"
        )
        raise RecipeError("student.start", [problem])
    if any(name.startswith("bert.pooler.") for name in new):
        say(f"student.start {source.location}: new pooler, the checkpoint has none")
    loaded = not any(name.startswith("classifier.") for name in new)
    settle_classifier(model, labels_of(found), loaded, source)
    return model


def _config_of(source: ModelSource) -> dict[str, Any]:
    """The checkpoint's config.json; without a model_type, as of early TinyBERT folders, a BERT's.

    Raises:
        RecipeError: it cannot be loaded.
    """
    from transformers import BertConfig

    try:
        found, _ = BertConfig.get_config_dict(source.location, revision=source.revision)
    except (OSError, ValueError) as error:
        raise _not_loadable(source, error) from error
    return {"model_type": "bert", **found}


def _not_loadable(source: ModelSource, error: Exception) -> RecipeError:
    problem = (
        f"{source.location} cannot be loaded: {first_line(error)}. Give a hub id (needs the "
        'network once), a folder with config.json and weights, "teacher" or "random"'
    )
    return RecipeError("student.start", [problem])


@dataclass(frozen=True, slots=True)
class StudentVocabulary:
    """The student's tokenizer, and the parts of its shape that depend on it.

    Args:
        config: configuration that vocabulary size, positions and token types are taken from.
        logits_only: why layers cannot be compared, so that the student learns from logits alone;
            None when they can.
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
        RecipeError: the teacher is not a BERT and no checkpoint with a tokenizer is named; or
            a checkpoint that reads fewer tokens than `data.max_length`.
    """
    from transformers import BertConfig

    config = teacher.model.config
    is_bert = config.model_type == "bert"
    if source is None:
        if not is_bert:
            problem = (
                f'"{settings.start}", but the teacher is a {config.model_type} model, whose '
                "layers and vocabulary the student cannot use; name a BERT checkpoint with its "
                "tokenizer (hub id or folder), for example huawei-noah/TinyBERT_General_4L_312D"
            )
            raise RecipeError("student.start", [problem])
        return StudentVocabulary(teacher.tokenizer, config, None)
    tokenizer = _load_tokenizer(source)
    if tokenizer is None and not is_bert:
        problem = (
            f"{source.location} holds no fast tokenizer (tokenizer.json or vocab.txt), and that "
            f"of a {config.model_type} teacher cannot be used; add the checkpoint's own"
        )
        raise RecipeError("student.start", [problem])
    same = tokenizer is None or tokenizer.get_vocab() == teacher.tokenizer.get_vocab()
    if same and is_bert:
        return StudentVocabulary(teacher.tokenizer, config, None)
    own_config = BertConfig.from_dict(_config_of(source) | {"model_type": "bert"})
    longest = own_config.max_position_embeddings
    if teacher.max_length > longest:
        problem = (
            f"{teacher.max_length}, but the student's checkpoint {source.location} reads at most "
            f"{longest} tokens; lower it to {longest} or less"
        )
        raise RecipeError("data.max_length", [problem])
    reason = (
        f"the layers of a {config.model_type} teacher cannot be compared with a BERT's"
        if same
        else "the student's vocabulary is not the teacher's"
    )
    return StudentVocabulary(tokenizer, own_config, reason)


def without_intermediate(settings: DistillSettings, reason: str) -> DistillSettings:
    """The settings of a student that learns from logits alone.

    Raises:
        RecipeError: the prediction phase is off too.
    """
    if settings.prediction.epochs == 0:
        problem = (
            f"0, but {reason}, so the intermediate phase is skipped too and the student would not "
            "be trained; set it above 0, or student.start to a checkpoint with the teacher's "
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


def save_student(output: Path, student: Any, tokenizer: Any, points: Iterable[LossPoint]) -> None:
    """Write `model/` and `losses.csv`, and remove files that only a resumed run needs.

    Raises:
        TrainingError: a weight is not a finite number.
    """
    student.eval()
    broken = [name for name, weight in student.named_parameters() if not weight.isfinite().all()]
    if broken:
        raise TrainingError(
            f"the student's {broken[0]} holds numbers that are not finite after the last step; "
            "lower the learning rates in distill"
        )
    if distributed.current().is_main:
        student.save_pretrained(output / "model")
        save_tokenizer(tokenizer, output / "model")
        write_losses(output / "losses.csv", points)
        for leftover in (*output.glob("*.checkpoint"), *output.glob("*.tmp*")):
            leftover.unlink()
        for other in output.glob("seed-*"):
            shutil.rmtree(other)
    distributed.barrier()
