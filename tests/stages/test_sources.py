"""What a recipe names outside its store: only what the planned stages read is looked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.minimal_recipe import recipe_tree

from factory.errors import RecipeError
from factory.recipe.file import parse_recipe
from factory.stages.sources import find_sources

RECIPE = parse_recipe(recipe_tree({"student.start": "./start"}))


def test_only_what_the_stages_read_is_looked_for(tmp_path: Path) -> None:
    """Nothing of this recipe exists here, except a teacher on the hub."""
    found = find_sources(RECIPE, tmp_path, {"teacher"})
    assert found.teacher.identity == "hub:org/teacher@main"
    assert (found.data, found.start, found.corpus, found.augment) == (None, None, None, None)


def test_everything_missing_is_reported_together(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        find_sources(RECIPE, tmp_path, {"data", "distill"})
    message = str(caught.value)
    assert len(caught.value.problems) == 3
    for part in ("no such file train.tsv", "no such file dev.tsv", "student.start"):
        assert part in message
