"""Manifests with the scores, gate and recipe of a finished run, alone or of a tiny bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from factory.recipe.file import parse_recipe
from factory.recipe.task import TASK_TRAITS
from helpers.minimal_recipe import recipe_tree
from helpers.tiny_bundle import write_tiny_bundle
from serving.bundle import Manifest, ModelFile, write_manifest

# By model: score on dev, megabytes, p50 in milliseconds.
MODELS: Mapping[str, tuple[float, float, float | None]] = {
    "teacher": (0.8, 90.8, 30.0),
    "student": (0.76, 57.4, 10.126),
    "baseline": (0.5, 57.4, None),
    "fp32": (0.75, 57.5, 4.0),
    "int8-rows": (0.72, 14.649999, 2.5),
}


def score(value: float) -> dict[str, float]:
    """A metric with an interval of a tenth around it."""
    return {"value": value, "low": value - 0.05, "high": value + 0.05}


def rule(name: str, measured: float, limit: float, *, passed: bool) -> dict[str, Any]:
    """A gate rule as the manifest holds it."""
    text = f"{name}: something is {measured:.4f} {'>=' if passed else '<'} {limit:g}"
    return {"rule": name, "measured": measured, "limit": limit, "passed": passed, "text": text}


def run_fields(task: str, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a run adds to a manifest: two metrics on dev, both 0.2 lower on test.

    Args:
        changes: dotted keys of the recipe that made it.
    """
    first, second = TASK_TRAITS[task].metrics[:2]  # type: ignore[index]
    recipe = parse_recipe(recipe_tree({"data.task": task, **(changes or {})}))
    return {
        "scores": {
            model: {
                "dev": {first: score(value), second: score(value - 0.1)},
                "test": {first: score(value - 0.2), second: score(value - 0.3)},
            }
            for model, (value, _, _) in MODELS.items()
        },
        "measurements": {
            "size_bytes": {model: round(1e6 * size) for model, (_, size, _) in MODELS.items()},
            "latency": {
                model: {"p50_ms": p50, "p95_ms": 2 * p50, "calls": 120}
                for model, (_, _, p50) in MODELS.items()
                if p50 is not None
            },
            "latency_conditions": "batch 1, one thread",
            "machine": {"architecture": "x86_64", "processor": "a processor", "cores": 2},
            "parameters": {"teacher": 22_700_000, "student": 14_350_000},
            "choice": "the first of fp32 (recipe order) to pass gate 2",
        },
        "gate": [rule("min_value", 0.75, 0.5, passed=True)],
        "recipe": recipe.model_dump(mode="json"),
        "versions": {"tinybert-factory": "0", "python": "3"},
        "data": {"rows": {"train": 100, "dev": 50, "test": 40}},
    }


def scored_manifest(
    task: str = "classification", changes: Mapping[str, Any] | None = None, **fields: Any
) -> Manifest:
    """The manifest of a run without its files.

    Args:
        changes: dotted keys of the recipe.
        fields: other values of the manifest's fields.
    """
    model = ModelFile("onnx/model.onnx", "fp32", ["input_ids"], "logits", 17, True)
    labels = ["value"] if task == "regression" else ["ham", "spam"]
    own: dict[str, Any] = {"name": "mails", "version": "0a1b", "labels": labels}
    own |= {"text_pair": False, "max_length": 64, "model": model, "files": {}}
    return Manifest(task=task, **{**own, **run_fields(task, changes), **fields})  # type: ignore[arg-type]


def write_scored_bundle(
    directory: Path, changes: Mapping[str, Any] | None = None, **arguments: Any
) -> Manifest:
    """Write `write_tiny_bundle`'s bundle with a run's numbers.

    Args:
        changes: dotted keys of the recipe.
        arguments: of `write_tiny_bundle`.
    """
    manifest = write_tiny_bundle(directory, **arguments)
    scored = replace(manifest, **run_fields(manifest.task, changes))
    write_manifest(directory, scored)
    return scored
