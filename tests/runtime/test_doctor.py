"""Doctor: versions, devices and providers, and each defect with its remedy."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

from factory.cli.main import main
from factory.runtime.doctor import (
    EXTRAS,
    advice,
    both_runtimes,
    examine,
    install_line,
    smallest_model,
    usable_providers,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def both_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metadata as if both wheels of onnxruntime were installed."""
    real = importlib.metadata.version

    def version(name: str) -> str:
        return "1.31.1" if name in ("onnxruntime", "onnxruntime-gpu") else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_a_healthy_installation() -> None:
    found = examine()
    assert found.errors == []
    assert found.versions["onnxruntime"] == onnxruntime.__version__
    assert found.versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found.devices[0].startswith("cpu, ")
    assert "CPUExecutionProvider" in found.providers


def test_command_exits_0_and_its_json_is_the_examination() -> None:
    result = CliRunner().invoke(main, ["doctor", "--json"])
    assert result.exit_code == 0
    told, found = json.loads(result.stdout), asdict(examine())
    for volatile in ("memory_available_bytes", "disk_free_bytes"):
        assert told["machine"].pop(volatile) > 0
        del found["machine"][volatile]
    assert told == found
    lines = CliRunner().invoke(main, ["doctor"]).stdout.splitlines()
    assert "provider  CPUExecutionProvider (tested with a session)" in lines


@pytest.mark.usefixtures("both_wheels")
def test_both_runtimes_are_an_error_with_the_way_out() -> None:
    (error,) = both_runtimes()
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in error
    assert "tinybert-factory[cpu]" in error
    found = examine()
    assert found.errors == [error]
    assert found.providers == []  # of two broken halves nothing is run
    assert f"ERROR     {error}" in found.lines()
    assert CliRunner().invoke(main, ["doctor"]).exit_code == 1


def test_missing_packages_come_with_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    absent = {"torch", "starlette", "onnxruntime"}

    def find_spec(name: str, *rest: Any) -> Any:
        return None if name in absent else real(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    found = examine()
    for name, extra in (("torch", "build"), ("onnxruntime", "cpu"), ("starlette", "serve")):
        line = f"{name} is not installed; run: pip install 'tinybert-factory[{extra}]'"
        assert line in found.missing
        assert f"missing   {line}" in found.lines()
    assert found.providers == []
    assert len(found.devices) == 1  # no torch to ask for more
    assert found.errors == []  # an extra that is not needed is no defect


def test_install_line_of_a_submodule_and_of_a_stranger() -> None:
    assert install_line("optimum.exporters.onnx") == (
        "optimum is not installed; run: pip install 'tinybert-factory[build]'"
    )
    assert install_line("frobnicate.parts") == (
        "the Python package frobnicate.parts is not installed"
    )


def test_every_extra_named_is_one_the_project_has() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(EXTRAS.values()) <= set(project["optional-dependencies"])


def test_the_smallest_model_is_a_valid_graph_that_copies() -> None:
    model = onnx.load_from_string(smallest_model())
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Identity"]


def test_a_provider_counts_only_when_a_session_ran_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU wheel lists CUDA on machines without a GPU, and answers with a CPU session."""
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    real = onnxruntime.InferenceSession
    asked = []

    def fall_back(model: bytes, options: Any, providers: list[str]) -> Any:
        asked.append(providers)
        return real(model, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", fall_back)
    assert usable_providers() == ["CPUExecutionProvider"]
    assert ["CUDAExecutionProvider"] in asked


def test_a_provider_that_raises_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no driver")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    assert usable_providers() == []


CPU = "model name : Test CPU\nflags : sse2 {}\n"


@pytest.mark.parametrize(
    ("flags", "problem"),
    [("", None), ("avx2", "no VNNI"), ("avx2 avx_vnni", None), ("sse4_1 avx512f", "no AVX2")],
)
def test_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, problem: str | None
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    (tmp_path / "cpuinfo").write_text(CPU.format(flags), encoding="ascii")
    (tmp_path / "meminfo").write_text("MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n")
    found = examine(tmp_path, tmp_path / "meminfo", tmp_path / "cpuinfo")
    assert found.machine["memory_bytes"] == 2**34
    assert found.machine["memory_available_bytes"] == 2**33
    assert found.machine["processor"] == "Test CPU"
    assert "memory    16 GiB" in found.lines()
    of_processor = [line for line in found.advice if "VNNI" in line or "AVX2" in line]
    assert (of_processor == []) if problem is None else (problem in of_processor[0])
    # the tests run with the hub switched off
    assert "HF_HUB_OFFLINE" in found.advice[-1]
    assert "factory init --offline" in found.advice[-1]


def test_too_little_room_says_what_to_do() -> None:
    facts = {
        "architecture": "aarch64", "instruction_sets": [], "memory_available_bytes": 2**30,
        "disk_free_bytes": 2**29, "hub": "reachable",
    }  # fmt: skip
    memory, disk = advice(facts)
    assert memory.startswith("1.0 GiB of memory available")
    assert "lower teacher.batch_size" in memory
    assert disk.startswith("0.5 GiB of disk free")
    assert "--store" in disk


def test_a_store_that_is_not_there_yet_has_a_disk(tmp_path: Path) -> None:
    found = examine(tmp_path / "runs" / "deeper", tmp_path / "no meminfo")
    assert found.machine["disk_free_bytes"] > 0
    assert found.machine["quickstart_minutes_estimated"] >= 1
    assert "memory    unknown" in found.lines()


@pytest.mark.parametrize("only", ["onnxruntime", "onnxruntime-gpu"])
def test_one_runtime_is_no_problem(monkeypatch: pytest.MonkeyPatch, only: str) -> None:
    def version(name: str) -> str:
        if name == only:
            return "1.31.1"
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert both_runtimes() == []
