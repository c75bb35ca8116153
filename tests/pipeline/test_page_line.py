"""The page of real runs: of the uninterrupted one, and of those that a gate stopped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from helpers.pipeline_run import Line, line_recipe

from factory import pipeline
from factory.cli.main import main
from factory.errors import GateFailedError
from factory.store import Store

pytestmark = pytest.mark.usefixtures("few_timings")


def refused(line: Line, store: Path, changes: Mapping[str, Any]) -> str:
    """The page of a run that a gate stops."""
    recipe = line_recipe({"distill.baseline": "random", **changes})
    with pytest.raises(GateFailedError):
        pipeline.run(recipe, line.recipe.parent, Store(store), "cpu")
    (page,) = store.glob("report-*/report.html")
    return page.read_text(encoding="utf-8")


def test_a_run_writes_its_page_beside_the_bundle_and_says_where(line: Line) -> None:
    folder = line.bundle.with_name("report-" + line.bundle.name.partition("-")[2])
    page = folder / "report.html"
    assert f"report: {page}\n" in line.result.stderr
    assert [file.name for file in folder.iterdir()] == ["report.html"]
    text = page.read_text(encoding="utf-8")
    assert "<h2>Passed</h2>" in text
    for part in ("gates", "models", "errors", "calibration", "disagreements", "data", "training"):
        assert f'<section id="{part}">' in text, part
    assert "student without distillation (torch)" in text
    assert text.count('class="chart"') >= 12
    assert len(text.encode()) < 2_000_000


@pytest.mark.usefixtures("pages")
def test_gate_1_leaves_a_page_that_says_why(line: Line, tmp_path: Path) -> None:
    store = line.copy_store(tmp_path, "bundle", "report")
    text = refused(line, store, {"gate.min_gain": 1.0})
    assert "Failed: nothing was published" in text
    assert '<section id="calibration">' in text
    arguments = ["report", str(line.recipe), "--store", str(store)]
    (page,) = store.glob("report-*/report.html")
    page.unlink()
    result = CliRunner().invoke(main, [*arguments, "--set", "gate.min_gain=1.0", "--no-texts"])
    assert result.stdout == f"{page}\n", result.stderr
    again = page.read_text(encoding="utf-8")
    assert "Gate 1: the student in torch</strong>: min_gain: accuracy gain over" in again
    assert "Texts are left out of this report." in again


@pytest.mark.usefixtures("pages")
def test_gate_2_leaves_a_page_with_what_it_measured(line: Line, tmp_path: Path) -> None:
    """Then a run that passes takes the place of what was refused."""
    store = line.copy_store(tmp_path, "bundle", "report")
    text = refused(line, store, {"gate.max_size_bytes": 1000})
    assert "Failed: nothing was published" in text
    assert "Gate 2: int8-static</strong>: max_size_bytes: file size" in text
    assert "fails max_<wbr>size_<wbr>bytes" in text
    assert "against latency" in text
    (folder,) = store.glob("report-*")
    assert sorted(file.name for file in folder.iterdir()) == ["gate_failure.json", "report.html"]
    assert not list(store.glob("bundle-*"))


def test_a_recipe_that_was_not_run_has_no_page(line: Line, tmp_path: Path) -> None:
    store = tmp_path / "empty"
    result = CliRunner().invoke(main, ["report", str(line.recipe), "--store", str(store)])
    assert result.exit_code == 1
    assert "no run of this recipe reached a gate; `factory plan` shows" in result.stderr
    assert not store.exists()


def test_a_page_that_cannot_be_drawn_costs_no_run(
    line: Line, tmp_path: Path, pages: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundle is there all the same, and the way to try again is told."""
    store = line.copy_store(tmp_path, "report")
    (losses,) = store.glob("distill-*/losses.csv")
    losses.write_text("no columns\n1\n", encoding="utf-8")
    recipe = line_recipe({"distill.baseline": "random"})
    bundle = pipeline.run(recipe, line.recipe.parent, Store(store), "cpu")
    assert bundle.name == line.bundle.name
    said = capsys.readouterr().err
    assert "report: not written (KeyError: 'step'); `factory report` tries again" in said
    assert not list(store.glob("report-*/*"))
