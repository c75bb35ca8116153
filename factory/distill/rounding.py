"""The round stage: train a student some more while it computes as its integer form will."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from factory.data.dataset import Split
from factory.distill.lesson import repeat_lesson
from factory.distill.phases import prediction_phase
from factory.distill.quantization_aware import Rounding, roundings_of, train_rounded
from factory.distill.transfer import AugmentedRows, Inputs
from factory.errors import ParityError
from factory.export.onnx import export_onnx
from factory.export.quantize.calibration import activation_ranges, measure_activations
from factory.export.variants import calibration_rows, integer_form
from factory.models.classifier import TorchClassifier
from factory.recipe.export import SEVEN_BIT_HARDWARE, VariantName
from factory.recipe.recipe import Recipe
from factory.runtime import distributed as processes
from factory.runtime.progress import say

# Whose rounding is trained with; the forms with one scale per token round less.
FORM: VariantName = "int8-static"


def train_with_rounding(
    directory: Path,
    distilled: Path,
    student: TorchClassifier,
    teacher: TorchClassifier,
    train: Split,
    recipe: Recipe,
    augmented: AugmentedRows | None = None,
    unlabelled: Inputs | None = None,
) -> dict[str, Any]:
    """Train a distilled student on the teacher's logits as `int8-static` computes, and save it.

    Args:
        directory: where the student goes; the checkpoint of an interrupted run is found there.
        distilled: the directory of the student, with the teacher's logits if they are still there.
        student: that student.

    Raises:
        ParityError: it is too small for any of its products to be rounded.
    """
    taught, settings = recipe.distill, recipe.quantize
    lesson = repeat_lesson(
        directory,
        distilled,
        teacher,
        student.tokenizer,
        train,
        taught,
        augmented,
        unlabelled,
    )
    # of several processes one measures: the last digits may differ
    roundings = processes.from_first(
        lambda: _roundings(distilled / "model", student, train, recipe)
    )
    phase = replace(
        prediction_phase(taught),
        name="rounding",
        epochs=settings.training_epochs,
        learning_rate=settings.training_learning_rate,
    )
    facts = train_rounded(
        directory,
        distilled / "model",
        roundings,
        lesson,
        phase,
        taught.prediction.temperature,
        recipe.export.first_token,
    )
    say(f"trained with {len(roundings)} products rounded as {FORM} does")
    parameters = sum(parameter.numel() for parameter in student.model.parameters())
    return {"form": FORM, "products": len(roundings), "parameters": parameters, **facts}


def _roundings(
    model: Path, student: TorchClassifier, train: Split, recipe: Recipe
) -> dict[str, Rounding]:
    """How the form rounds this student, from the file that would be exported now."""
    settings = recipe.quantize
    rows = calibration_rows(student, train, settings.calibration_rows)
    seven_bits = recipe.target.hardware in SEVEN_BIT_HARDWARE
    layers = student.model.config.num_hidden_layers
    form = integer_form(FORM, layers, seven_bits, settings.smoothing)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "model.onnx"
        export_onnx(model, source, recipe.export.opset, recipe.export.first_token)
        ranges = activation_ranges(measure_activations(source, rows), settings.calibration)
        roundings = roundings_of(source, form, ranges)
    if not roundings:
        raise ParityError(
            "quantize.training_epochs: this student is too small, none of its products would be "
            "rounded; leave the key out"
        )
    return roundings
