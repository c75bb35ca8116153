"""Fine-tune or adopt the teacher of a recipe, and check that it is better than chance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from factory.data.dataset import Dataset, Split
from factory.errors import TeacherError
from factory.evaluation.evaluate import evaluate_splits
from factory.evaluation.results import Evaluation
from factory.models.classifier import load_torch_classifier, longest_input
from factory.models.encoding import encode_inputs, save_tokenizer
from factory.models.source import ModelSource
from factory.models.tasks import TASKS
from factory.recipe.training import TeacherSettings
from factory.runtime import distributed
from factory.teacher.load import load_pretrained
from factory.training.embedding_subset import embedding_subset
from factory.training.hard_labels import HardLabelLoss
from factory.training.loss_log import LossPoint
from factory.training.trainer import phase_of, train

CHECKPOINT = "teacher.checkpoint"


def make_teacher(
    output: Path,
    source: ModelSource,
    settings: TeacherSettings,
    dataset: Dataset,
    max_length: int,
    device: str,
    *,
    only_bert: bool = True,
) -> dict[str, Any]:
    """Fine-tune or adopt the teacher, save it below `output`, and score it on dev.

    Args:
        only_bert: see `load_pretrained`.

    Returns:
        Facts: parameters, layers, and the evaluation on dev; empty on other ranks than 0.

    Raises:
        TeacherError: the model cannot be loaded or used, reads fewer tokens than `max_length`, or
            its labels do not match.
    """
    model, tokenizer = load_pretrained(source, settings, dataset, only_bert=only_bert)
    longest = longest_input(model)
    if longest is not None and max_length > longest:
        raise TeacherError(
            f"data.max_length is {max_length}, but teacher.model {settings.model} reads at most "
            f"{longest} tokens; lower data.max_length to {longest} or less"
        )
    if settings.fine_tune:
        fine_tune(output, model, tokenizer, settings, dataset.train, max_length, device)
    if not distributed.current().is_main:
        return {}
    model.eval()
    model.save_pretrained(output / "model")
    save_tokenizer(tokenizer, output / "model")
    (output / CHECKPOINT).unlink(missing_ok=True)
    teacher = load_torch_classifier(output / "model", max_length, device)
    result = evaluate_splits(teacher, [dataset.dev], dataset.labels)[dataset.dev.name]
    return {
        "source": source.identity,
        "fine_tuned_here": settings.fine_tune,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "layers": model.config.num_hidden_layers,
        "hidden": model.config.hidden_size,
        "dev": result.to_facts(),
    }


def check_teacher(facts: Mapping[str, Any], dataset: Dataset, min_margin: float) -> None:
    """Raise if the teacher is not clearly better than chance on dev.

    Raises:
        TeacherError: it predicts the same for every row of dev, or is not above chance by
            `min_margin` (`factory.evaluation.chance`).
    """
    evaluation = Evaluation.from_facts(facts["dev"])
    problem = TASKS[dataset.task].chance_problem(evaluation, dataset, min_margin)
    if problem is not None:
        advice = (
            "Fine-tuning did not work: check teacher.learning_rate, teacher.epochs, and whether "
            "the labels in train fit their texts"
            if facts["fine_tuned_here"]
            else "Was this model fine-tuned on these labels? If yes, its outputs may be in another "
            "order: name them with teacher.labels. If not, set teacher.fine_tune = true"
        )
        raise TeacherError(
            f"the teacher {problem} (teacher.min_margin), so distillation would not work. {advice}"
        )


def fine_tune(
    output: Path,
    model: Any,
    tokenizer: Any,
    settings: TeacherSettings,
    labelled: Split,
    max_length: int,
    device: str,
) -> list[LossPoint]:
    """Train `model` in place on annotated rows; an interrupted run resumes from its checkpoint.

    The last weights are kept: nothing is selected on dev, which scores the teacher afterwards.
    """
    rows = encode_inputs(tokenizer, labelled.inputs(), max_length)
    phase = phase_of("teacher", settings)
    loss = HardLabelLoss(model.to(device), labelled, device, settings.class_weights == "balanced")
    with embedding_subset(rows, model):
        return train(
            phase,
            loss,
            rows,
            output / CHECKPOINT,
            device,
            # other architectures may have weights that their forward pass does not use
            find_unused_parameters=model.config.model_type != "bert",
        )
