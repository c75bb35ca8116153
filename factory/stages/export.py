"""Stage export: write the student as ONNX, and compare the file with torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from factory.recipe.recipe import Recipe
from factory.stages.sources import Sources
from factory.stages.stage import Facts, Run, Stage, model_stages, section


def shipped_stages(recipe: Recipe) -> tuple[str, ...]:
    """The stage whose student is exported: with the smaller vocabulary, or the student itself."""
    trimmed = recipe.export.general_pieces is not None
    return ("trim",) if trimmed else (model_stages(recipe)["student"],)


def _inputs(recipe: Recipe) -> tuple[str, ...]:
    # labels of multilabel models are compared under thresholds that the evaluation chose
    thresholds = ("evaluate",) if recipe.data.traits.has_label_sets else ()
    return ("data", *shipped_stages(recipe), *thresholds)


def _settings(recipe: Recipe, _sources: Sources) -> dict[str, Any]:
    return {
        "export": section(recipe, "export", "general_pieces"),
        "data": {"max_length": recipe.data.max_length},
    }


def _make(output: Path, run: Run) -> Facts:
    from factory.evaluation.results import evaluations_from_facts
    from factory.export.onnx import export_onnx
    from factory.export.parity import check_agreement, check_parity

    export, dataset = run.recipe.export, run.dataset
    file = output / "model.onnx"
    export_onnx(run.shipped.directory / "model", file, export.opset, export.first_token)
    model = run.open_model(run.shipped, "cpu")
    thresholds = None
    if run.recipe.data.traits.has_label_sets:
        evaluations = evaluations_from_facts(run.artifacts["evaluate"].facts)
        thresholds = evaluations["student"]["dev"].thresholds
    return {
        "largest_difference": check_parity(file, model, export.atol),
        "dev_rows_agreeing": check_agreement(file, model, dataset.dev, thresholds, export.atol),
        "size_bytes": file.stat().st_size,
    }


STAGE = Stage("export", 3, inputs=_inputs, settings=_settings, make=_make)
