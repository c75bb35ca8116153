"""Facts of the processor, read from files such as Linux writes."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from factory.runtime.machine import machine_facts

X86 = """processor\t: 0
model name\t: Example 9000
flags\t\t: fpu avx avx2 avx512f avx512_vnni

processor\t: 1
model name\t: Example 9000
flags\t\t: fpu avx avx2 avx512f avx512_vnni
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\nCPU part\t: 0xd40\n"


@pytest.mark.parametrize(
    ("text", "processor", "sets"),
    [
        (X86, "Example 9000", ["avx2", "avx512f", "avx512_vnni"]),
        (ARM, platform.processor(), ["asimddp", "i8mm"]),
    ],
)
def test_instruction_sets_that_matter(
    tmp_path: Path, text: str, processor: str, sets: list[str]
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    facts = machine_facts(file)
    assert facts == {
        "architecture": platform.machine(),
        "processor": processor,
        "instruction_sets": sets,
        "cores": os.cpu_count(),
    }


def test_a_system_without_the_file(tmp_path: Path) -> None:
    assert machine_facts(tmp_path / "nothing")["instruction_sets"] == []
