"""The processor that measurements were taken on: an int8 file answers otherwise on another kind."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

# What decides which integer products onnxruntime uses.
INSTRUCTION_SETS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8", "asimddp", "i8mm")


def machine_facts(cpu_information: Path = Path("/proc/cpuinfo")) -> dict[str, Any]:
    """Architecture, processor name, the instruction sets that matter, and usable cores."""
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
