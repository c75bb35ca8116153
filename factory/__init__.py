"""tinybert-factory: one recipe in, one gated ONNX bundle out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from factory.version import VERSION

if TYPE_CHECKING:
    from factory.api import Bundle, Plan, compare, plan, run, score, verify
    from factory.errors import FactoryError, GateFailedError
    from factory.recipe.file import load_recipe
    from factory.recipe.recipe import Recipe
    from factory.runtime.doctor import examine
    from factory.scaffold.start import start_recipe
    from factory.store import Store

__version__ = VERSION
__all__ = [
    "Bundle",
    "FactoryError",
    "GateFailedError",
    "Plan",
    "Recipe",
    "Store",
    "compare",
    "examine",
    "load_recipe",
    "plan",
    "run",
    "score",
    "start_recipe",
    "verify",
]

# Wheels of onnxruntime from 1.29 on report to their maker, and keep an identifier on disk, unless
# this is set before their first import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "Bundle": "factory.api",
    "FactoryError": "factory.errors",
    "GateFailedError": "factory.errors",
    "Plan": "factory.api",
    "Recipe": "factory.recipe.recipe",
    "Store": "factory.store",
    "compare": "factory.api",
    "examine": "factory.runtime.doctor",
    "load_recipe": "factory.recipe.file",
    "plan": "factory.api",
    "run": "factory.api",
    "score": "factory.api",
    "start_recipe": "factory.scaffold.start",
    "verify": "factory.api",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import factory` stays cheap."""
    if name not in _HOMES:
        raise AttributeError(f"module 'factory' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names, for completion in notebooks."""
    return sorted([*globals(), *__all__])
