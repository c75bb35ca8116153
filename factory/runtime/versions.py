"""Versions of the product and of the libraries that shape what it makes."""

from __future__ import annotations

import importlib.metadata
import platform

from factory.version import VERSION

LIBRARIES = (
    "torch",
    "transformers",
    "tokenizers",
    "optimum",
    "optimum-onnx",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "datasets",
    "accelerate",
    "scikit-learn",
    "numpy",
)


def library_versions() -> dict[str, str]:
    """Version of Python, of this product, and of every library that is installed."""
    versions = {"tinybert-factory": VERSION, "python": platform.python_version()}
    for name in LIBRARIES:
        found = installed_version(name)
        if found is not None:
            versions[name] = found
    return versions


def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
