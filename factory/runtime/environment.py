"""The environment of a command: library settings, heap, processor, versions, hub, scratch."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import os
import platform
import shutil
import socket
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from factory.version import VERSION

# glibc's mallopt parameters (malloc.h).
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4

# Instruction sets that decide which integer products onnxruntime uses.
INSTRUCTION_SETS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8", "asimddp", "i8mm")

# Libraries whose versions affect artifacts.
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

HUB_TIMEOUT_SECONDS = 3.0
OFFLINE_SETTINGS = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
TRUE_VALUES = ("1", "on", "yes", "true")


def prepare_libraries() -> None:
    """Turn off progress bars, notes and telemetry of libraries that are not imported yet.

    Environment variables that are already set keep their values.
    """
    for name, value in (
        ("HF_HUB_DISABLE_TELEMETRY", "1"),
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("TOKENIZERS_PARALLELISM", "true"),
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1"),
    ):
        os.environ.setdefault(name, value)


def keep_freed_memory() -> None:
    """Make glibc reuse the large blocks that every training step frees.

    By default glibc returns them to the OS and pays for fresh pages in each step: a tenth of a
    training step on CPU. Does nothing with other C libraries.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def trim_heap() -> None:
    """Return freed heap memory to the OS (glibc malloc_trim).

    Batches of varying sizes fragment glibc's heap, which then grows by some KiB per row. Does
    nothing with other C libraries.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def machine_facts(cpu_information: Path = Path("/proc/cpuinfo")) -> dict[str, Any]:
    """Architecture, processor name, relevant instruction sets, and number of cores.

    Recorded with measurements: int8 outputs can differ between processors.
    """
    fields: dict[str, str] = {}
    if cpu_information.is_file():
        lines = cpu_information.read_text(encoding="utf-8", errors="replace").splitlines()
        pairs = (line.partition(":") for line in lines)
        fields = {name.strip(): value.strip() for name, _, value in pairs}
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return {
        "architecture": platform.machine(),
        "processor": fields.get("model name") or platform.processor(),
        "instruction_sets": [name for name in INSTRUCTION_SETS if name in flags],
        "cores": os.cpu_count(),
    }


def library_versions() -> dict[str, str]:
    """Versions of this product, Python, and every installed library of `LIBRARIES`."""
    found = {name: installed_version(name) for name in LIBRARIES}
    installed = {name: version for name, version in found.items() if version is not None}
    return {"tinybert-factory": VERSION, "python": platform.python_version(), **installed}


def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def hub_state() -> str:
    """Return "reachable", or why the model hub is not; opens one connection, sends nothing."""
    for name in OFFLINE_SETTINGS:
        if os.environ.get(name, "").strip().lower() in TRUE_VALUES:
            return f"switched off by {name}"
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    proxy = urllib.parse.urlsplit(endpoint).scheme + "_proxy"
    address = os.environ.get(proxy) or os.environ.get(proxy.upper()) or endpoint
    parts = urllib.parse.urlsplit(address if "://" in address else f"http://{address}")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=HUB_TIMEOUT_SECONDS):
            return "reachable"
    except OSError:
        return f"not reachable ({address})"


@contextlib.contextmanager
def scratch_directory(parent: Path) -> Iterator[Path]:
    """An empty directory below `parent`, removed at the end; replaces one of a crashed run."""
    directory = parent / "scratch"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
