"""tinybert-factory: one recipe in, one gated ONNX bundle out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from factory.version import VERSION

if TYPE_CHECKING:
    from factory.errors import FactoryError, GateFailedError
    from factory.pipeline import run
    from factory.recipe import Recipe
    from factory.recipe_file import load_recipe
    from factory.store import Store

__version__ = VERSION
__all__ = ["FactoryError", "GateFailedError", "Recipe", "Store", "load_recipe", "run"]

# Wheels of onnxruntime from 1.29 on report to their maker, and keep an identifier on disk, unless
# this is set before their first import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "FactoryError": "factory.errors",
    "GateFailedError": "factory.errors",
    "Recipe": "factory.recipe",
    "Store": "factory.store",
    "load_recipe": "factory.recipe_file",
    "run": "factory.pipeline",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import factory` stays cheap."""
    if name not in _HOMES:
        raise AttributeError(f"module 'factory' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
