"""Stage quantize: write the forms of the ONNX file that the recipe requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from factory.export.forms import SEVEN_BIT_HARDWARE, FormName, FormSource, write_forms
from factory.recipe.recipe import Recipe
from factory.stages.export import shipped_stages
from factory.stages.sources import Sources
from factory.stages.stage import Facts, Run, Stage, section


def _settings(recipe: Recipe, _sources: Sources) -> dict[str, Any]:
    return {
        "quantize": {
            **section(recipe, "quantize", "forms"),
            "forms": list(recipe.quantize.written(recipe.target.hardware)),
            "seven_bits": recipe.target.hardware in SEVEN_BIT_HARDWARE,
        },
        "data": {"max_length": recipe.data.max_length},
    }


def _make(output: Path, run: Run) -> Facts:
    settings, hardware = run.recipe.quantize, run.recipe.target.hardware
    source = FormSource(
        run.artifacts["export"].directory / "model.onnx",
        run.open_model(run.shipped, "cpu"),
        run.dataset.train,
        settings.calibration_rows,
        settings.smoothing,
        hardware in SEVEN_BIT_HARDWARE,
    )
    return write_forms(output, settings.written(hardware), source)


def form_files(run: Run) -> dict[FormName, Path]:
    """The ONNX file of every form, fp32 first."""
    files: dict[FormName, Path] = {"fp32": run.artifacts["export"].directory / "model.onnx"}
    for form in run.recipe.quantize.written(run.recipe.target.hardware):
        files[form] = run.artifacts["quantize"].directory / f"{form}.onnx"
    return files


STAGE = Stage(
    name="quantize",
    version=5,
    inputs=lambda recipe: ("data", "export", *shipped_stages(recipe)),
    settings=_settings,
    make=_make,
    wanted=lambda recipe: bool(recipe.quantize.written(recipe.target.hardware)),
)
