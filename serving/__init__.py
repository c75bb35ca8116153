"""Runs a bundle: opens it, verifies it, answers with labels and scores; torch-free."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.bundle import Manifest, read_manifest
    from serving.predictor import Predictor

__all__ = ["Manifest", "Predictor", "read_manifest"]

_HOMES = {
    "Manifest": "serving.bundle",
    "Predictor": "serving.predictor",
    "read_manifest": "serving.bundle",
}


def __getattr__(name: str) -> object:
    """Load a public name at first use, so that importing the package stays free."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
