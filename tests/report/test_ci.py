"""The reports of `factory run` for CI: JUnit XML read back by another library, and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from helpers.minimal_recipe import recipe_tree
from helpers.pipeline_run import factory_here, write_recipe
from helpers.scored_bundle import rule, write_scored_bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from junitparser import Error, Failure, JUnitXml, Skipped, TestSuite

from factory.errors import DataError, GateFailedError, TrainingError
from factory.recipe.file import parse_recipe
from factory.report.ci import Outcome, junit_xml

GOOD = rule("min_value", 0.75, 0.5, passed=True)
BAD = rule("min_value", 0.25, 0.5, passed=False)
RECIPE_FILE = Path("ci/recipe.toml")


def read(document: bytes) -> TestSuite:
    """The one suite of a document."""
    (suite,) = JUnitXml.fromstring(document)
    assert isinstance(suite, TestSuite)
    return suite


def cases(suite: TestSuite) -> dict[tuple[str, str], list[Any]]:
    """The problems of each case, by class and name."""
    found: dict[tuple[str, str], list[Any]] = {}
    for case in suite:
        assert (case.classname, case.name) not in found
        found[case.classname, case.name] = case.result
    return found


def stopped(error: Exception, **gate: Any) -> TestSuite:
    """The suite of a run that ended with an error, with more rules in its recipe."""
    tree = recipe_tree({f"gate.{name}": value for name, value in gate.items()})
    outcome = Outcome(RECIPE_FILE, parse_recipe(tree))
    outcome.stop(error)
    return read(junit_xml(outcome))


def test_a_failed_rule_is_a_failure_with_its_numbers() -> None:
    bad = rule("max_drop", 0.123456, 0.01, passed=False)
    rules = {"gate 2 (int8-static)": [GOOD, bad], "gate 2 (fp32)": [BAD]}
    suite = stopped(GateFailedError("gate 2", ["a line"], rules), max_drop=0.01)
    found = cases(suite)
    assert found["gate 2 (int8-static)", "min_value"] == []
    (failure,) = found["gate 2 (int8-static)", "max_drop"]
    assert isinstance(failure, Failure)
    assert failure.message == bad["text"]
    assert "measured: 0.123456\nlimit: 0.01" in failure.text
    assert isinstance(found["gate 2 (fp32)", "min_value"][0], Failure)
    assert (suite.failures, suite.errors) == (2, 0)
    assert found["factory", "run"] == []


def test_rules_that_were_not_evaluated_are_skipped() -> None:
    error = GateFailedError("gate 1", ["a line"], {"gate 1 (student in torch)": [BAD]})
    suite = stopped(error, max_size_bytes=1000, metric="accuracy", positive_label=None)
    skipped = [name for (_, name), result in cases(suite).items() if Skipped in map(type, result)]
    assert skipped == ["max_quantization_drop", "max_size_bytes"]
    assert suite.skipped == 2


@pytest.mark.parametrize("error", [DataError("the data", ["line 3: empty"]), OSError("x")])
def test_any_other_error_is_an_error_of_the_run(error: Exception) -> None:
    suite = stopped(error)
    (found,) = cases(suite)["factory", "run"]
    assert isinstance(found, Error)
    assert (found.type, found.text) == (type(error).__name__, str(error))
    assert (suite.errors, suite.failures) == (1, 0)


@settings(max_examples=50)
@given(st.text(max_size=40), st.lists(st.floats(allow_nan=True), min_size=1, max_size=3))
def test_any_label_and_number_gives_valid_xml(label: str, numbers: Sequence[float]) -> None:
    rules = [
        {"rule": f"r{index}", "measured": n, "limit": n, "passed": False, "text": f"r: {label}"}
        for index, n in enumerate(numbers)
    ]
    suite = read(junit_xml(Outcome(RECIPE_FILE, verdicts={label: rules})))
    assert (suite.failures, suite.tests) == (len(numbers), len(numbers) + 1)


@pytest.fixture(autouse=True)
def same_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    """`factory run` changes the allocator of its process, which all tests share."""
    monkeypatch.setattr("factory.runtime.environment.keep_freed_memory", lambda: None)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "recipe.toml")


def run(recipe: Path, *options: object) -> Result:
    return factory_here("run", recipe, "--store", recipe.parent / "runs", *options)


def run_reported(recipe: Path) -> tuple[Result, TestSuite, str]:
    """A run, its JUnit suite and its summary."""
    folder = recipe.parent / "out"
    result = run(recipe, "--junit", folder / "gate.xml", "--summary", folder / "summary.md")
    suite = read((folder / "gate.xml").read_bytes())
    return result, suite, (folder / "summary.md").read_text("utf-8")


def end_pipeline(monkeypatch: pytest.MonkeyPatch, ending: Path | BaseException) -> None:
    """Replace the pipeline by a result or an error."""

    def end(*_: Any) -> Path:
        if isinstance(ending, BaseException):
            raise ending
        return ending

    monkeypatch.setattr("factory.pipeline.run", end)


def test_a_finished_run(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = recipe.parent / "bundle"
    write_scored_bundle(bundle)
    end_pipeline(monkeypatch, bundle)
    result, suite, summary = run_reported(recipe)
    assert (result.exit_code, result.stdout) == (0, f"{bundle}\n")
    assert cases(suite) == {("gate 2 (fp32)", "min_value"): [], ("factory", "run"): []}
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (2, 0, 0, 0)
    assert suite.name == "tiny-line"
    assert str(bundle) in str(list(suite)[-1].system_out)
    assert summary.startswith("## tiny-line: gate passed\n")
    assert "| pass | `min_value` | 0.75 | 0.5 |" in summary
    assert "student, ONNX fp32 (served) | 0.7500" in summary
    assert str(bundle) in summary
    # a killed run must not leave the successful report of an earlier one
    end_pipeline(monkeypatch, KeyboardInterrupt())
    _, suite, summary = run_reported(recipe)
    assert isinstance(cases(suite)["factory", "run"][0], Error)
    assert "not finished" in summary


def test_a_failed_gate(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = rule("max_drop", 0.0, 0.1, passed=True)
    end_pipeline(monkeypatch, GateFailedError("gate 1", ["no"], {"gate 1 (x)": [good, BAD]}))
    result, suite, summary = run_reported(recipe)
    assert result.exit_code == 3
    assert (suite.failures, suite.errors) == (1, 0)
    assert "gate failed, nothing published" in summary
    rows = [line for line in summary.splitlines() if line.startswith(("| pass", "| **FAIL"))]
    assert [row.split("|")[1].strip() for row in rows] == ["**FAIL**", "pass"]
    assert "Not evaluated: `min_retention`, `max_quantization_drop`" in summary


def test_an_error(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end_pipeline(monkeypatch, TrainingError("the loss ```broke```"))
    result, suite, summary = run_reported(recipe)
    assert result.exit_code == 1
    assert (suite.failures, suite.errors) == (0, 1)
    assert "````\nthe loss ```broke```\n````" in summary


def test_an_invalid_recipe_is_reported_under_its_file_name(recipe: Path) -> None:
    recipe.write_text("name = \n", encoding="utf-8")
    result, suite, _ = run_reported(recipe)
    assert result.exit_code == 2
    assert (suite.name, suite.errors, suite.tests) == ("recipe", 1, 1)


def test_a_report_that_cannot_be_written_stops_the_run_before_any_work(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_pipeline(monkeypatch, AssertionError("the work began"))
    (recipe.parent / "file").write_text("", encoding="utf-8")
    result = run(recipe, "--junit", recipe.parent / "file" / "gate.xml")
    assert result.exit_code == 1
    assert "file" in result.stderr


def test_the_summary_page_of_a_github_job(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end_pipeline(monkeypatch, GateFailedError("gate 1", ["no"], {"gate 1": [BAD]}))
    page = recipe.parent / "page.md"
    page.write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    result = run(recipe)
    assert (result.exit_code, result.stdout) == (3, "")
    assert page.read_text("utf-8").startswith("before\n## tiny-line: gate failed")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(recipe.parent / "none" / "page.md"))
    result = run(recipe)
    assert result.exit_code == 3
    assert "cannot write the reports" in result.stderr
