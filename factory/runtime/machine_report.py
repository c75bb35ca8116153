"""What `factory doctor` says of the machine: processor, memory, disk, hub, extras, time."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from factory.runtime.machine import machine_facts
from factory.scaffold.defaults import hub_state

GIBIBYTE = 2**30
# What a run of the default shapes needs: weights, optimizer, activations; models and caches.
NEEDED_MEMORY = 4 * GIBIBYTE
NEEDED_DISK = 3 * GIBIBYTE
# `factory run recipes/quickstart.toml` took 6 minutes on 2 cores with AVX-512 VNNI.
QUICKSTART_CORE_MINUTES = 12.0
MOST_USEFUL_CORES = 8  # of batches this small
INTEGER_PRODUCTS = ("avx_vnni", "avx512_vnni", "amx_int8", "i8mm")


def machine_report(
    store: Path, meminfo: Path = Path("/proc/meminfo"), information: Path = Path("/proc/cpuinfo")
) -> tuple[dict[str, Any], list[str]]:
    """Facts of this machine, and what to do about each thing that will be in the way.

    Args:
        store: where runs would be written; its disk is looked at.
    """
    facts = machine_facts(information)
    cores = usable_cores()
    facts["usable_cores"] = cores
    facts["memory_bytes"], facts["memory_available_bytes"] = _memory(meminfo)
    facts["disk_free_bytes"] = shutil.disk_usage(_existing(store)).free
    facts["hub"] = hub_state()
    minutes = QUICKSTART_CORE_MINUTES / min(cores, MOST_USEFUL_CORES)
    facts["quickstart_minutes_estimated"] = max(1, round(minutes))
    return facts, list(advice(facts))


def advice(facts: Mapping[str, Any]) -> list[str]:
    """One line for each fact that is in the way: what is wrong, and what to do."""
    found = []
    sets = facts["instruction_sets"]
    if facts["architecture"] in ("x86_64", "AMD64") and sets and "avx2" not in sets:
        found.append("no AVX2: int8 models run slowly here; measure with factory run before using")
    elif sets and not set(sets) & set(INTEGER_PRODUCTS):
        found.append(
            "no VNNI: int8 gains less speed here, and 8-bit weights can overflow; leave "
            'target.hardware = "avx2", which ships 7-bit weights'
        )
    memory = facts["memory_available_bytes"]
    if memory is not None and memory < NEEDED_MEMORY:
        found.append(
            f"{memory / GIBIBYTE:.1f} GiB of memory available: training needs about "
            f"{NEEDED_MEMORY // GIBIBYTE}; close programs, or lower teacher.batch_size and "
            "distill.batch_size to 8"
        )
    disk = facts["disk_free_bytes"]
    if disk < NEEDED_DISK:
        found.append(
            f"{disk / GIBIBYTE:.1f} GiB of disk free: a run takes about "
            f"{NEEDED_DISK // GIBIBYTE}; free some, or give --store a folder on another disk"
        )
    if facts["hub"] != "reachable":
        found.append(
            f"model hub {facts['hub']}: hub names work only from the local cache; use "
            "factory init --offline, or a folder as teacher.model"
        )
    return found


def report_lines(facts: Mapping[str, Any]) -> list[str]:
    """The facts as text."""
    memory = facts["memory_bytes"]
    sets = ", ".join(facts["instruction_sets"]) or "none known"
    return [
        f"processor {facts['processor'] or facts['architecture']}; {sets}",
        f"memory    {'unknown' if memory is None else f'{memory / GIBIBYTE:.0f} GiB'}",
        f"disk      {facts['disk_free_bytes'] / GIBIBYTE:.0f} GiB free",
        f"hub       {facts['hub']}",
        f"estimate  recipes/quickstart.toml: about {facts['quickstart_minutes_estimated']} minutes "
        "without a GPU",
    ]


def usable_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def extras_found(modules: Mapping[str, str]) -> dict[str, bool]:
    """For each extra whether all its import packages are there."""
    found: dict[str, bool] = {}
    for module, extra in modules.items():
        found[extra] = found.get(extra, True) and importlib.util.find_spec(module) is not None
    return found


def _memory(meminfo: Path) -> tuple[int | None, int | None]:
    if not meminfo.is_file():
        return None, None
    lines = (line.partition(":") for line in meminfo.read_text(encoding="ascii").splitlines())
    sizes = {name: int(value.split()[0]) * 1024 for name, _, value in lines if value.strip()}
    return sizes.get("MemTotal"), sizes.get("MemAvailable", sizes.get("MemTotal"))


def _existing(path: Path) -> Path:
    path = path.absolute()
    return path if path.exists() else _existing(path.parent)
