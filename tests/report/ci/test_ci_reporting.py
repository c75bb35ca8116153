"""The command `run` and its reports: however it ends, what CI reads says how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from helpers.pipeline_run import factory_here, write_recipe
from helpers.scored_bundle import rule, write_scored_bundle
from junitparser import JUnitXml

from factory.errors import GateFailedError, TrainingError

BAD = rule("min_value", 0.25, 0.5, passed=False)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "recipe.toml")


def run(recipe: Path, *more: object) -> Result:
    folder = recipe.parent
    return factory_here(
        "run", recipe, "--store", folder / "runs", "--junit", folder / "out" / "gate.xml",
        "--summary", folder / "out" / "summary.md", *more,
    )  # fmt: skip


def pipeline(monkeypatch: pytest.MonkeyPatch, ending: Path | BaseException) -> None:
    """Let the pipeline end so."""

    def end(*_: Any) -> Path:
        if isinstance(ending, BaseException):
            raise ending
        return ending

    monkeypatch.setattr("factory.pipeline.run", end)


def read(recipe: Path) -> tuple[JUnitXml, str]:
    folder = recipe.parent / "out"
    return JUnitXml.fromfile(str(folder / "gate.xml")), (folder / "summary.md").read_text("utf-8")


def test_a_finished_run_is_reported(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = recipe.parent / "bundle"
    write_scored_bundle(bundle)
    pipeline(monkeypatch, bundle)
    result = run(recipe)
    assert (result.exit_code, result.stdout) == (0, f"{bundle}\n")
    document, summary = read(recipe)
    assert (document.tests, document.failures, document.errors) == (2, 0, 0)
    assert summary.startswith("## tiny-line: gate passed\n")
    assert "| pass | `min_value` | 0.75 | 0.5 |" in summary
    assert "student, ONNX fp32 (served) | 0.7500" in summary
    assert str(bundle) in summary


def test_a_failed_gate_is_reported_and_keeps_its_exit_code(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = rule("max_drop", 0.0, 0.1, passed=True)
    pipeline(monkeypatch, GateFailedError("gate 1", ["no"], {"gate 1 (x)": [good, BAD]}))
    assert run(recipe).exit_code == 3
    document, summary = read(recipe)
    assert (document.failures, document.errors) == (1, 0)
    assert "gate failed, nothing published" in summary
    rows = [line for line in summary.splitlines() if line.startswith(("| pass", "| **FAIL"))]
    assert [row.split("|")[1].strip() for row in rows] == ["**FAIL**", "pass"]
    assert "`min_retention`, `max_quantization_drop`" in summary  # what was not reached


def test_an_error_is_reported(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline(monkeypatch, TrainingError("the loss ```broke```"))
    assert run(recipe).exit_code == 1
    document, summary = read(recipe)
    assert (document.failures, document.errors) == (0, 1)
    assert "````\nthe loss ```broke```\n````" in summary


def test_a_recipe_that_cannot_be_read_is_reported(recipe: Path) -> None:
    recipe.write_text("name = \n", encoding="utf-8")
    assert run(recipe).exit_code == 2
    assert read(recipe)[0].errors == 1


def test_a_run_cut_off_leaves_no_green_report_of_an_earlier_one(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scored_bundle(recipe.parent / "bundle")
    pipeline(monkeypatch, recipe.parent / "bundle")
    assert run(recipe).exit_code == 0
    pipeline(monkeypatch, KeyboardInterrupt())  # as a kill, it leaves no time for a report
    run(recipe)
    document, summary = read(recipe)
    assert document.errors == 1
    assert "not finished" in summary


def test_a_report_that_cannot_be_written_is_told_before_the_work(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline(monkeypatch, AssertionError("the work began"))
    (recipe.parent / "file").write_text("", encoding="utf-8")
    result = factory_here("run", recipe, "--junit", recipe.parent / "file" / "gate.xml")
    assert result.exit_code == 1
    assert "file" in result.stderr


def test_a_github_job_gets_the_summary_on_its_page(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = recipe.parent / "page.md"
    page.write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    pipeline(monkeypatch, GateFailedError("gate 1", ["no"], {"gate 1": [BAD]}))
    result = factory_here("run", recipe, "--store", recipe.parent / "runs")
    assert (result.exit_code, result.stdout) == (3, "")
    text = page.read_text("utf-8")
    assert text.startswith("before\n")
    assert "gate failed" in text


def test_the_page_that_cannot_be_written_hides_no_failure(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(recipe.parent / "none" / "page.md"))
    pipeline(monkeypatch, GateFailedError("gate 1", ["no"], {"gate 1": [BAD]}))
    result = factory_here("run", recipe, "--store", recipe.parent / "runs")
    assert result.exit_code == 3
    assert "cannot write the reports" in result.stderr
