"""The report of real runs: of the uninterrupted one, and of those with a failed gate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.pipeline_run import Line, factory_here

from factory.errors import GateFailedError

pytestmark = pytest.mark.usefixtures("few_timings")


def report_of_failed_run(line: Line, store: Path, changes: Mapping[str, Any]) -> str:
    """The report of a run with a failed gate."""
    with pytest.raises(GateFailedError):
        line.run_changed(store, changes, report=True)
    (page,) = store.glob("report-*/report.html")
    return page.read_text(encoding="utf-8")


def test_a_run_writes_its_report_beside_the_bundle(line: Line) -> None:
    folder = line.bundle.with_name("report-" + line.bundle.name.partition("-")[2])
    page = folder / "report.html"
    assert f"report: {page}\n" in line.stderr
    assert [file.name for file in folder.iterdir()] == ["report.html"]
    text = page.read_text(encoding="utf-8")
    assert "<h2>Passed</h2>" in text
    for part in ("gates", "models", "errors", "calibration", "disagreements", "data", "training"):
        assert f'<section id="{part}">' in text, part
    assert "student without distillation (torch)" in text
    assert text.count('class="chart"') >= 12
    assert len(text.encode()) < 2_000_000


def test_report_of_a_failed_gate_1(line: Line, tmp_path: Path) -> None:
    store = line.copy_store(tmp_path, "bundle", "report")
    text = report_of_failed_run(line, store, {"gate.min_retention": 1.5})
    assert "Failed: nothing was published" in text
    assert '<section id="calibration">' in text
    changed = ["--set", "gate.min_retention=1.5"]
    (page,) = store.glob("report-*/report.html")
    page.unlink()
    result = factory_here("report", line.recipe, "--store", store, *changed, "--no-texts")
    assert result.stdout == f"{page}\n", result.stderr
    again = page.read_text(encoding="utf-8")
    assert "Gate 1: the student in torch</strong>: min_retention: accuracy retention " in again
    assert "Texts are left out of this report." in again


def test_report_of_a_failed_gate_2(line: Line, tmp_path: Path) -> None:
    store = line.copy_store(tmp_path, "bundle", "report")
    text = report_of_failed_run(line, store, {"gate.max_size_bytes": 1000})
    assert "Failed: nothing was published" in text
    assert "Gate 2: int8-static</strong>: max_size_bytes: file size" in text
    assert "fails max_<wbr>size_<wbr>bytes" in text
    assert "against latency" in text
    (folder,) = store.glob("report-*")
    assert sorted(file.name for file in folder.iterdir()) == ["gate_failure.json", "report.html"]
    assert not list(store.glob("bundle-*"))


def test_a_recipe_that_was_not_run_has_no_report(line: Line, tmp_path: Path) -> None:
    store = tmp_path / "empty"
    result = factory_here("report", line.recipe, "--store", store)
    assert result.exit_code == 1
    assert "no run of this recipe reached a gate; `factory plan` shows" in result.stderr
    assert not store.exists()


def test_an_error_in_the_report_does_not_fail_the_run(
    line: Line, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = line.copy_store(tmp_path, "report")
    (losses,) = store.glob("distill-*/losses.csv")
    losses.write_text("no columns\n1\n", encoding="utf-8")
    assert line.run_changed(store, report=True).name == line.bundle.name
    stderr = capsys.readouterr().err
    assert "report: not written (KeyError: 'step'); run `factory report` to try again" in stderr
    assert not list(store.glob("report-*/*"))
