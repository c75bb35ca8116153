"""JUnit XML read back by a library that others read it with: every rule a case, no failure lost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.minimal_recipe import recipe_tree
from helpers.scored_bundle import rule, write_scored_bundle
from hypothesis import given
from hypothesis import strategies as st
from junitparser import Error, Failure, JUnitXml, Skipped, TestSuite

from factory.errors import DataError, FactoryError, GateFailedError
from factory.recipe.file import parse_recipe
from factory.recipe.recipe import Recipe
from factory.report.ci.junit import junit_xml, unfinished_xml
from factory.report.ci.outcome import Outcome, published, stopped

RECIPE_FILE = Path("recipe.toml")


def recipe(**gate: Any) -> Recipe:
    return parse_recipe(recipe_tree({f"gate.{name}": value for name, value in gate.items()}))


def read(document: bytes) -> TestSuite:
    """The one suite of a document."""
    (suite,) = JUnitXml.fromstring(document)
    assert isinstance(suite, TestSuite)
    return suite


def cases(suite: TestSuite) -> dict[tuple[str, str], list[Any]]:
    """The results of each case that are not mere success."""
    found: dict[tuple[str, str], list[Any]] = {}
    for case in suite:
        assert (case.classname, case.name) not in found
        found[case.classname, case.name] = case.result
    return found


def failed_gate(*rules: dict[str, Any], gate: str = "gate 2 (int8-static)") -> GateFailedError:
    return GateFailedError("gate failed", ["a line"], {gate: rules})


def test_a_passed_gate_has_one_case_per_rule_and_no_failure(tmp_path: Path) -> None:
    write_scored_bundle(tmp_path / "bundle")
    outcome = published(RECIPE_FILE, recipe(), tmp_path / "bundle", 12.5)
    suite = read(junit_xml(outcome))
    assert cases(suite) == {("gate 2 (fp32)", "min_value"): [], ("factory", "run"): []}
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (2, 0, 0, 0)
    assert (suite.name, suite.time) == ("tiny", 12.5)
    assert str(tmp_path / "bundle") in str(list(suite)[-1].system_out)


def test_a_failed_gate_names_the_rule_with_its_numbers() -> None:
    good = rule("min_value", 0.75, 0.5, passed=True)
    bad = rule("max_drop", 0.123456, 0.01, passed=False)
    suite = read(junit_xml(stopped(RECIPE_FILE, recipe(max_drop=0.01), failed_gate(good, bad), 1)))
    found = cases(suite)
    assert found["gate 2 (int8-static)", "min_value"] == []
    (failure,) = found["gate 2 (int8-static)", "max_drop"]
    assert isinstance(failure, Failure)
    assert failure.message == bad["text"]
    assert "measured: 0.123456\nlimit: 0.01" in failure.text
    assert (suite.failures, suite.errors) == (1, 0)
    assert found["factory", "run"] == []  # the gate did its work; the rule is what failed


def test_every_form_that_gate_2_refused_has_its_own_cases() -> None:
    bad = rule("min_value", 0.4, 0.5, passed=False)
    error = GateFailedError(
        "gate 2", ["no"], {"gate 2 (int8-static)": [bad], "gate 2 (fp32)": [bad]}
    )
    suite = read(junit_xml(stopped(RECIPE_FILE, recipe(max_quantization_drop=0.01), error, 1)))
    failures = [key for key, result in cases(suite).items() if result and result[0]._tag]
    assert ("gate 2 (int8-static)", "min_value") in failures
    assert ("gate 2 (fp32)", "min_value") in failures
    assert suite.failures == 2


def test_rules_that_gate_1_did_not_reach_are_skipped_and_not_passed() -> None:
    bad = rule("min_value", 0.4, 0.5, passed=False)
    wanted = recipe(max_size_bytes=1000, metric="accuracy", positive_label=None)
    error = failed_gate(bad, gate="gate 1 (student in torch)")
    suite = read(junit_xml(stopped(RECIPE_FILE, wanted, error, 1)))
    found = cases(suite)
    skipped = [name for (_, name), result in found.items() if result and type(result[0]) is Skipped]
    assert skipped == ["max_quantization_drop", "max_size_bytes"]
    assert suite.skipped == 2


@pytest.mark.parametrize(
    "error", [DataError("the data", ["train.tsv line 3: empty"]), FactoryError("no"), OSError("x")]
)
def test_an_error_that_is_no_verdict_is_red_too(error: Exception) -> None:
    suite = read(junit_xml(stopped(RECIPE_FILE, recipe(), error, 1)))
    (found,) = cases(suite)["factory", "run"]
    assert isinstance(found, Error)
    assert found.type == type(error).__name__
    assert found.text == str(error)
    assert (suite.errors, suite.failures) == (1, 0)


def test_a_recipe_that_cannot_be_read_gives_its_file_name() -> None:
    suite = read(junit_xml(stopped(Path("ci/mails.toml"), None, FactoryError("no"), 1)))
    assert (suite.name, suite.errors, suite.tests) == ("mails", 1, 1)


def test_until_the_end_the_document_says_unfinished() -> None:
    suite = read(unfinished_xml("mails"))
    (found,) = cases(suite)["factory", "run"]
    assert isinstance(found, Error)
    assert suite.errors == 1


@given(st.text(max_size=40), st.lists(st.floats(allow_nan=True), min_size=1, max_size=3))
def test_whatever_a_label_holds_the_document_can_be_read(
    label: str, numbers: Sequence[float]
) -> None:
    rules = [
        {"rule": f"r{index}", "measured": n, "limit": n, "passed": False, "text": f"r: {label}"}
        for index, n in enumerate(numbers)
    ]
    outcome = Outcome(RECIPE_FILE, 0.0, None, {label: rules}, error=failed_gate())
    suite = read(junit_xml(outcome))
    assert (suite.failures, suite.tests) == (len(numbers), len(numbers) + 1)
