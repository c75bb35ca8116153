"""Facts of the processor, state of the hub, settings of the libraries, scratch directories."""

from __future__ import annotations

import os
import platform
import socket
from pathlib import Path

import pytest

from factory.runtime.environment import (
    hub_state,
    machine_facts,
    prepare_libraries,
    scratch_directory,
)

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


def test_hub_state_without_a_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert hub_state() == f"not reachable ({address})"
        listener.listen()
        assert hub_state() == "reachable"


def test_usage_data_stays_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_DISABLE_TELEMETRY", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    prepare_libraries()
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_scratch_directory_is_empty_and_goes(tmp_path: Path) -> None:
    (tmp_path / "scratch" / "of a crashed run").mkdir(parents=True)
    with scratch_directory(tmp_path) as directory:
        assert list(directory.iterdir()) == []
        (directory / "file").touch()
    assert list(tmp_path.iterdir()) == []
