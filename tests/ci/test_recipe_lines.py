"""Lines of keys in a TOML text, against texts whose lines are counted by hand."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_line import ROOT

from factory.report.ci.recipe_lines import key_lines, line_of_problem

TEXT = '''# a comment with gate.metric = "no"
name = "x"

[data]
train = "a.tsv"   # [gate]
text = [
  "one",
  "gate.min_value = 3",
]
quoting = """
[gate]
metric = "not here"
"""
  [ distill . prediction ]
"epochs" = 3.0
[gate]
metric = "accuracy"
min_value = 0.5
'''


def test_every_key_and_table_is_found_at_its_line() -> None:
    assert key_lines(TEXT) == {
        "name": 2,
        "data": 4,
        "data.train": 5,
        "data.text": 6,
        "data.quoting": 10,
        "distill.prediction": 14,
        "distill.prediction.epochs": 15,
        "gate": 16,
        "gate.metric": 17,
        "gate.min_value": 18,
    }


def test_dotted_keys_and_broken_ends() -> None:
    text = "student.layers = 4\n[gate]\nmin_value = 0.5\nmax_drop = = 3\n[export]\nopset = 17\n"
    assert key_lines(text) == {
        "student.layers": 1,
        "gate": 2,
        "gate.min_value": 3,
        "gate.max_drop": 4,
    }


@pytest.mark.parametrize(
    ("key", "message", "line"),
    [
        ("recipe.toml", "gate.min_value: must be less (given: 3)", 18),
        ("gate.metric", "'f1' is for two labels", 17),
        ("recipe.toml", "gate.max_dorp: unknown key; did you mean gate.max_drop?", 16),
        ("recipe.toml", "teacher.model: required and missing", None),
        ("recipe.toml", "recipe: gate has no quality rule: set one of min_value", 16),
        ("recipe.toml", "recipe: a name that is no data.train.column", 5),
        ("recipe.toml", "no such name or column", None),
        ("recipe.toml", "recipe: distill.prediction.epochs and so on", 15),
        ("recipe.toml", "not valid TOML: Invalid value (at line 7, column 3)", 7),
    ],
)
def test_a_problem_has_the_line_of_what_it_names(
    tmp_path: Path, key: str, message: str, line: int | None
) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(TEXT, encoding="utf-8")
    assert line_of_problem(file, key, message) == line


def test_no_file_no_line(tmp_path: Path) -> None:
    assert line_of_problem(tmp_path / "none.toml", "gate", "gate: x") is None


def flat(tree: dict[str, Any], prefix: str = "") -> set[str]:
    names = set()
    for key, value in tree.items():
        names.add(prefix + key)
        if isinstance(value, dict):
            names |= flat(value, f"{prefix}{key}.")
    return names


@pytest.mark.parametrize("file", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda f: f.name)
def test_every_key_of_the_shipped_recipes_is_found_on_a_line_that_shows_it(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    found = key_lines(text)
    values = {name for name in flat(tomllib.loads(text)) if name in found}
    missing = flat(tomllib.loads(text)) - values
    # tables that only hold tables have no line of their own
    assert all(any(name.startswith(f"{table}.") for name in found) for table in missing)
    lines = text.splitlines()
    for name, line in found.items():
        assert name.rpartition(".")[2] in lines[line - 1]


@given(st.text(alphabet='ab.[]="\n #', max_size=60))
def test_any_text_gives_lines_that_exist(text: str) -> None:
    assert all(1 <= line <= len(text.splitlines()) for line in key_lines(text).values())
