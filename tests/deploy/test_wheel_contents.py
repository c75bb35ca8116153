"""A wheel of the project contains every package and every data file."""

from __future__ import annotations

import os
import subprocess
import sys

from helpers.pipeline_run import ROOT
from setuptools import Distribution
from setuptools.config.pyprojecttoml import apply_configuration

TELEMETRY = "ORT_DISABLE_TELEMETRY"


def test_data_of_the_packages_is_packaged() -> None:
    distribution = Distribution()
    apply_configuration(distribution, ROOT / "pyproject.toml")
    packaged = {
        str(file.relative_to(ROOT))
        for package, patterns in distribution.package_data.items()
        for pattern in patterns
        for file in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    present = {
        str(file.relative_to(ROOT))
        for package in ("factory", "serving")
        for file in (ROOT / package).rglob("*")
        if file.is_file() and file.suffix not in {".py", ".pyc"}
    }
    assert present == packaged


def test_every_package_is_found() -> None:
    distribution = Distribution()
    apply_configuration(distribution, ROOT / "pyproject.toml")
    folders = {
        ".".join(file.parent.relative_to(ROOT).parts)
        for top in ("factory", "serving")
        for file in (ROOT / top).rglob("__init__.py")
    }
    assert folders <= set(distribution.packages)


def test_onnxruntimes_telemetry_is_off() -> None:
    environment = {key: value for key, value in os.environ.items() if key != TELEMETRY}
    code = f"import factory, os; print(os.environ['{TELEMETRY}'])"
    command = [sys.executable, "-c", code]
    for before, after in (({}, "1"), ({TELEMETRY: "0"}, "0")):
        said = subprocess.run(
            command, env=environment | before, cwd=ROOT, check=True, capture_output=True, text=True
        )
        assert said.stdout.strip() == after
