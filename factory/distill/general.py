"""General distillation: the intermediate losses of a base teacher over packed rows of raw text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from factory.data.corpus.shards import PackedRows
from factory.data.corpus.tokenize import load_config, load_tokenizer
from factory.distill.intermediate import train_intermediate
from factory.distill.layer_map import describe_map, map_layers
from factory.distill.loss_log import summary
from factory.distill.phase import total_steps
from factory.distill.phases import general_phase
from factory.distill.projections import save_projections
from factory.distill.saving import save_student
from factory.distill.student import CALIBRATION_TOKENS, start_student
from factory.errors import TeacherError
from factory.models.classifier import TorchClassifier, UnloadableError, load_bert_classifier
from factory.models.source import ModelSource
from factory.recipe.recipe import Recipe
from factory.recipe.training import GeneralSettings
from factory.runtime import distributed as processes
from factory.runtime.progress import say


def general_distill(
    directory: Path, teacher: TorchClassifier, rows: PackedRows, recipe: Recipe
) -> dict[str, Any]:
    """Train a student on a base teacher's layers and save it as a plain `BertModel`.

    General distillation of TinyBERT, section 3.2: the losses of equations 7 to 9 and no prediction
    loss. Beside the model lie its width projections.

    Args:
        directory: where the student goes; a checkpoint of an interrupted run is found there.
        teacher: see `load_base_teacher`.

    Returns:
        Layer map, rows, epochs, tokens seen, steps, parameters, and each loss term's first and
        last value.

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
    phase = general_phase(settings)
    points = train_intermediate(
        phase,
        teacher.model.bert,
        start,
        layer_map,
        rows,
        settings,
        directory / "general.checkpoint",
        teacher.device,
    )
    save_student(directory, start.model.bert, teacher.tokenizer, points)
    if processes.current().first:
        save_projections(start.projections, directory / "model")
    processes.wait_for_all()
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
    """The base teacher as it is before any task.

    It comes with an even classifier, so that a derived student keeps the pooled coordinates that
    vary most; nothing else reads it.

    Raises:
        TeacherError: it cannot be loaded, is no BERT, or lacks weights of its encoder.
    """
    config, tokenizer = load_config(source, settings.max_length), load_tokenizer(source)
    config.num_labels = 2
    torch.manual_seed(settings.seed)  # a pooler the checkpoint lacks is drawn while loading
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
            f"({len(absent)} in all); it is no whole BERT"
        )
    with torch.no_grad():
        model.classifier.weight.fill_(1.0)
    return TorchClassifier(model.to(device).eval(), tokenizer, settings.max_length, device)
