"""Workflow commands as GitHub's runner parses them, and none elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from scored_bundle import rule

from factory.errors import FactoryError, GateFailedError, RecipeError
from factory.report.ci.annotations import annotate, annotation_lines

# the runner's own pattern of a command: ::NAME PROPERTIES::MESSAGE
COMMAND = re.compile(r"^::(?P<name>[a-z]+) (?P<properties>.*?)::(?P<message>.*)$")


def parse(line: str) -> tuple[dict[str, str], str]:
    """Properties and message, unescaped in the order of actions/runner's ActionCommand."""
    found = COMMAND.match(line)
    assert found is not None
    assert found["name"] == "error"
    properties = dict(part.split("=", 1) for part in found["properties"].split(","))

    def plain(text: str) -> str:
        for code, character in (
            ("%0D", "\r"),
            ("%0A", "\n"),
            ("%3A", ":"),
            ("%2C", ","),
            ("%25", "%"),
        ):
            text = text.replace(code, character)
        return text

    return {key: plain(value) for key, value in properties.items()}, plain(found["message"])


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "recipe.toml"
    file.write_text('name = "x"\n[gate]\nmin_value = 0.9\n[data]\ntrain = "t"\n', encoding="utf-8")
    return file


def test_each_problem_of_a_recipe_is_marked_at_its_line(recipe: Path) -> None:
    error = RecipeError(
        str(recipe), ["data.trian: unknown key", "gate.min_value: 100 %, or\nso: (given: 9)"]
    )
    first, second = [parse(line) for line in annotation_lines(error, recipe)]
    assert first == (
        {"file": recipe.as_posix(), "line": "4", "title": str(recipe)},
        error.problems[0],
    )
    assert second[0]["line"] == "3"
    assert second[1] == error.problems[1]


def test_only_failed_rules_are_marked_with_what_was_judged(recipe: Path) -> None:
    bad = rule("min_value", 0.5, 0.9, passed=False)
    rules = {
        "gate 2 (int8-static)": [bad, rule("max_drop", 0, 1, passed=True)],
        "gate 2 (fp32)": [rule("max_quantization_drop", 0.5, 0.1, passed=False)],
    }
    lines = annotation_lines(GateFailedError("gate 2 failed", ["x"], rules), recipe)
    (one, text), (other, _) = [parse(line) for line in lines]
    assert (one["line"], one["title"]) == ("3", "gate 2 failed")
    assert text == f"gate 2 (int8-static): {bad['text']}"
    assert other["line"] == "2"  # a default that the recipe does not write: its table


def test_another_error_is_marked_at_the_file(recipe: Path) -> None:
    ((properties, text),) = [parse(x) for x in annotation_lines(FactoryError("a, b: c"), recipe)]
    assert properties == {"file": recipe.as_posix(), "title": "FactoryError"}
    assert text == "a, b: c"


def test_of_many_problems_ten_are_shown_and_the_rest_counted(recipe: Path) -> None:
    error = RecipeError(str(recipe), [f"gate.x{number}: no" for number in range(25)])
    lines = annotation_lines(error, recipe)
    assert len(lines) == 10
    assert "and 16 more" in lines[-1]


def test_the_file_is_named_from_the_checkout(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_WORKSPACE", str(recipe.parent.parent))
    (line,) = annotation_lines(FactoryError("x"), recipe)
    assert parse(line)[0]["file"] == f"{recipe.parent.name}/recipe.toml"


@pytest.mark.parametrize(("value", "lines"), [("true", 1), ("false", 0), (None, 0)])
def test_nothing_is_marked_outside_a_github_job(
    recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    value: str | None,
    lines: int,
) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    if value is not None:
        monkeypatch.setenv("GITHUB_ACTIONS", value)
    annotate(FactoryError("x"), recipe)
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("::error ")) == ("", lines)
