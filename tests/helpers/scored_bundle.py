"""A tiny bundle that serves, with the scores, gate and recipe of a finished run in its manifest."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from factory.recipe.file import parse_recipe
from helpers.minimal_recipe import recipe_tree
from serving.bundle import Manifest, write_manifest

VALUES = {"teacher": 0.8, "student": 0.76, "fp32": 0.75}


def score(value: float) -> dict[str, float]:
    """A metric with an interval of a tenth around it."""
    return {"value": value, "low": value - 0.05, "high": value + 0.05}


def rule(name: str, measured: float, limit: float, *, passed: bool) -> dict[str, Any]:
    """A gate rule as the manifest holds it."""
    text = f"{name}: something is {measured:.4f} {'>=' if passed else '<'} {limit:g}"
    return {"rule": name, "measured": measured, "limit": limit, "passed": passed, "text": text}


def write_scored_bundle(
    directory: Path, changes: Mapping[str, Any] | None = None, **arguments: Any
) -> Manifest:
    """Write `write_tiny_bundle`'s bundle with a run's numbers.

    Args:
        changes: dotted keys of the recipe that made it.
        arguments: of `write_tiny_bundle`.
    """
    sys.path.append(str(Path(__file__).parent / "serving"))
    from helpers.tiny_bundle import write_tiny_bundle

    manifest = write_tiny_bundle(directory, **arguments)
    task = {"classification": "accuracy", "regression": "spearman", "multilabel": "micro_f1"}
    metric = task[manifest.task]
    recipe = parse_recipe(recipe_tree({"data.task": manifest.task, **(changes or {})}))
    scored = msgspec.structs.replace(
        manifest,
        scores={model: {"dev": {metric: score(value)}} for model, value in VALUES.items()},
        measurements={
            "size_bytes": {"teacher": 90_800_000, "student": 57_400_000, "fp32": 50_000_000},
            "latency": {
                name: {"p50_ms": milliseconds, "p95_ms": 2 * milliseconds, "calls": 120}
                for name, milliseconds in (("teacher", 30.0), ("student", 10.0), ("fp32", 4.0))
            },
            "latency_conditions": "batch 1, one thread",
            "machine": {"architecture": "x86_64", "processor": "a processor", "cores": 2},
            "parameters": {"teacher": 22_700_000, "student": 14_350_000},
            "choice": "the first of fp32 (recipe order) to pass gate 2",
        },
        gate=[rule("min_value", 0.75, 0.5, passed=True)],
        recipe=recipe.model_dump(mode="json"),
        versions={"tinybert-factory": "0", "python": "3"},
        data={"rows": {"train": 100, "dev": 50}},
    )
    write_manifest(directory, scored)
    return scored
