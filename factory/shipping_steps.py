"""The stages from a finished student to a bundle, fingerprinted without running anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from factory.export.forms import SEVEN_BIT_HARDWARE
from factory.recipe.recipe import Recipe
from factory.store import Step

# Raised by hand when a stage's code makes something else from the same inputs.
TRIM_VERSION = 1
EXPORT_VERSION = 2
QUANTIZE_VERSION = 3
BUNDLE_VERSION = 4


@dataclass(frozen=True, slots=True)
class ShippingSteps:
    """What the recipe does not need is None."""

    trim: Step | None
    export: Step
    quantize: Step | None
    bundle: Step

    def steps(self) -> list[Step]:
        """The stages in the order they run."""
        stages = (self.trim, self.export, self.quantize, self.bundle)
        return [step for step in stages if step is not None]


def make_shipping_steps(
    recipe: Recipe,
    models: Mapping[str, str],
    evaluate: Step,
    texts: Mapping[str, str],
    predecessor: str | None = None,
) -> ShippingSteps:
    """Trim the vocabulary (when asked for), export, quantize (when a form needs it), bundle.

    Args:
        models: fingerprints of data, teacher, student and, if trained, baseline.
        texts: fingerprints of the other rows the student learned on, by name.
        predecessor: identity of the bundle the gate compares with.
    """
    sections = recipe.model_dump(mode="json")
    length = {"max_length": recipe.data.max_length}
    trim: Step | None = None
    if recipe.export.general_pieces is not None:
        trim = Step(
            "trim",
            TRIM_VERSION,
            {"export": {"general_pieces": recipe.export.general_pieces}, "data": length},
            {"data": models["data"], "student": models["student"], **texts},
        )
    shipped = models["student"] if trim is None else trim.fingerprint
    compared = {"data": models["data"], "student": shipped}
    if recipe.data.task == "multilabel":  # whose labels are compared under its thresholds
        compared["evaluation"] = evaluate.fingerprint
    how = _without(sections["export"], "general_pieces")
    export = Step("export", EXPORT_VERSION, {"export": how, "data": length}, compared)
    inputs = {**models, "evaluation": evaluate.fingerprint, "onnx": export.fingerprint}
    if trim is not None:
        inputs["trimmed"] = trim.fingerprint
    quantize = _quantize_step(recipe, sections["quantize"], export, models["data"])
    if quantize is not None:
        inputs["forms"] = quantize.fingerprint
    settings: dict[str, Any] = {
        "name": recipe.name,
        "gate": _gate_settings(sections["gate"], predecessor),
        "teacher": {"min_margin": recipe.teacher.min_margin},
        "quantize": {"forms": recipe.quantize.forms},
        "target": sections["target"],
    }
    card = {key: value for key, value in sections["card"].items() if value}
    if card:
        settings["card"] = card
    return ShippingSteps(trim, export, quantize, Step("bundle", BUNDLE_VERSION, settings, inputs))


def _quantize_step(
    recipe: Recipe, section: Mapping[str, Any], export: Step, data: str
) -> Step | None:
    forms = recipe.quantize.written(recipe.target.hardware)
    if not forms:
        return None
    settings = {
        "quantize": {
            **_without(section, "forms"),
            "forms": list(forms),
            "seven_bits": recipe.target.hardware in SEVEN_BIT_HARDWARE,
        },
        "data": {"max_length": recipe.data.max_length},
    }
    return Step("quantize", QUANTIZE_VERSION, settings, {"onnx": export.fingerprint, "data": data})


def _gate_settings(section: Mapping[str, Any], predecessor: str | None) -> dict[str, Any]:
    """A predecessor is what it holds, wherever it stands; none leaves old fingerprints alone."""
    if predecessor is None:
        return _without(section, "predecessor", "not_worse_than_predecessor")
    return {**section, "predecessor": predecessor}


def _without(section: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key not in names}
