"""General distillation: the intermediate losses of a base teacher over packed rows of raw text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from factory.data.corpus import load_base_model
from factory.data.shards import PackedRows
from factory.distill.matching import describe_map, map_layers
from factory.distill.student import CALIBRATION_TOKENS, save_student, start_student
from factory.distill.student_checkpoint import save_projections
from factory.distill.tinybert import IntermediateLoss
from factory.errors import TeacherError
from factory.models.classifier import TorchClassifier, UnloadableError, load_bert_classifier
from factory.models.source import ModelSource
from factory.recipe.recipe import Recipe
from factory.recipe.training import GeneralSettings
from factory.runtime import distributed
from factory.runtime.progress import say
from factory.training.loss_log import summary
from factory.training.trainer import phase_of, total_steps, train


def general_distill(
    output: Path, teacher: TorchClassifier, rows: PackedRows, recipe: Recipe
) -> dict[str, Any]:
    """Train a student on a base teacher's layers and save it as a plain `BertModel`.

    General distillation of TinyBERT, section 3.2: the losses of equations 7 to 9 without the
    prediction loss. The width projections are saved with the model.

    Args:
        output: the student's output; an interrupted run resumes from its checkpoint there.
        teacher: see `load_base_teacher`.

    Raises:
        RecipeError: the student's shape or start does not fit the teacher.
    """
    settings = recipe.general
    assert settings is not None, "checked by the recipe"
    depth = teacher.model.config.num_hidden_layers
    layer_map = map_layers(recipe.distill.layer_map, recipe.student.layers, depth)
    say(f"layer map (student<-teacher): {describe_map(layer_map)}")
    shape = recipe.student.model_copy(update={"start": settings.start})
    few = rows.sample(CALIBRATION_TOKENS // settings.max_length)
    start = start_student(shape, None, teacher, layer_map, few, settings.seed)
    teacher.model.eval()
    teacher.model.requires_grad_(False)
    phase = phase_of("general", settings)
    loss = IntermediateLoss(start, teacher.model, layer_map, settings)
    points = train(phase, loss, rows, output / "general.checkpoint", teacher.device)
    save_student(output, start.model.bert, teacher.tokenizer, points)
    if distributed.current().is_main:
        save_projections(start.projections, output / "model")
    distributed.barrier()
    return {
        "layer_map": list(layer_map),
        "rows": len(rows),
        "epochs": settings.epochs,
        "tokens_seen": round(float(rows.lengths.sum()) * settings.epochs),
        "steps": total_steps(phase, len(rows)),
        "parameters": sum(parameter.numel() for parameter in start.model.bert.parameters()),
        "losses": summary(points),
    }


def load_base_teacher(
    source: ModelSource, settings: GeneralSettings, device: str
) -> TorchClassifier:
    """The base teacher, before any task.

    All weights of its classifier are equal, so that a derived student keeps the pooled coordinates
    that vary most; nothing else reads the classifier.

    Raises:
        TeacherError: it cannot be loaded, is not a BERT, or lacks weights of its encoder.
    """
    config, tokenizer = load_base_model(source, settings.max_length)
    config.num_labels = 2
    torch.manual_seed(settings.seed)  # for a pooler that the checkpoint lacks
    try:
        model, new = load_bert_classifier(source, config)
    except UnloadableError as error:
        raise TeacherError(
            f"the base teacher cannot be loaded from {source.location}: {error}"
        ) from error
    absent = sorted(name for name in new if name.startswith("bert.") and ".pooler." not in name)
    if absent:
        raise TeacherError(
            f"the base teacher in {source.location} has no weights for {absent[0]} "
            f"({len(absent)} in all); it is not a complete BERT"
        )
    with torch.no_grad():
        model.classifier.weight.fill_(1.0)
    return TorchClassifier(model.to(device).eval(), tokenizer, settings.max_length, device)
