"""Doctor: versions, devices and providers as they are, and each defect with its remedy."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

from factory import doctor
from factory.cli import main
from factory.doctor import EXTRAS, both_runtimes, examine, install_line, usable_providers

ROOT = Path(__file__).parents[1]


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
    assert json.loads(result.stdout) == examine().facts()
    lines = CliRunner().invoke(main, ["doctor"]).stdout.splitlines()
    assert "provider  CPUExecutionProvider (a session ran on it)" in lines


@pytest.mark.usefixtures("both_wheels")
def test_both_runtimes_are_an_error_with_the_way_out() -> None:
    (error,) = both_runtimes()
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in error
    assert "tinybert-factory[cpu]" in error
    found = examine()
    assert found.errors == [error]
    assert found.providers == []  # of two broken halves nothing is run
    assert f"ERROR     {error}" in found.lines()


@pytest.mark.usefixtures("both_wheels")
def test_both_runtimes_make_the_command_fail() -> None:
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 1
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in result.stdout
    assert CliRunner().invoke(main, ["doctor", "--json"]).exit_code == 1


@pytest.mark.parametrize("only", ["onnxruntime", "onnxruntime-gpu"])
def test_one_runtime_is_fine(monkeypatch: pytest.MonkeyPatch, only: str) -> None:
    def version(name: str) -> str:
        if name == only:
            return "1.31.1"
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert both_runtimes() == []


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
    model = onnx.load_from_string(doctor._smallest_model())
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
