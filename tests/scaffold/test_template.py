"""The recipe that `factory init` writes is valid and keeps every name; no file is overwritten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.errors import FactoryError
from factory.recipe.data import DataSettings
from factory.recipe.file import load_recipe
from factory.recipe.recipe import Recipe
from factory.scaffold.defaults import Choices
from factory.scaffold.template import write_template


def written(path: Path, teacher: str = "some/bert", **changes: Any) -> Recipe:
    """The recipe from a template with some settings of [data]."""
    data = {"train": "data/train.csv", **changes}
    if "dev" not in changes:
        data["dev_fraction"] = 0.1
    write_template(path, DataSettings(**data), teacher, Choices())
    return load_recipe(path)


def test_the_usual_recipe(tmp_path: Path) -> None:
    recipe = written(tmp_path / "mails.toml")
    assert (recipe.name, recipe.teacher.model) == ("mails", "some/bert")
    assert (recipe.data.train, recipe.data.dev, recipe.data.dev_fraction) == (
        "data/train.csv", None, 0.1
    )  # fmt: skip
    assert (recipe.student.layers, recipe.student.hidden) == (4, 312)
    assert (recipe.gate.min_retention, recipe.gate.min_agreement) == (0.968, 0.98)
    assert recipe.quantize.forms == "auto"
    text = (tmp_path / "mails.toml").read_text(encoding="utf-8")
    assert "factory run mails.toml" in text
    assert text.count("#") > 10  # commented


@pytest.mark.parametrize("task", ["classification", "regression", "multilabel"])
def test_every_task(tmp_path: Path, task: Any) -> None:
    recipe = written(tmp_path / "r.toml", task=task)
    assert recipe.data.task == task
    assert (recipe.gate.min_agreement is None) == (task == "regression")
    text = (tmp_path / "r.toml").read_text(encoding="utf-8")
    assert ("label_separator" in text) == (task == "multilabel")


@settings(max_examples=40, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1), pair=st.booleans())
def test_any_name_is_kept(tmp_path_factory: pytest.TempPathFactory, text: str, pair: bool) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.unlink(missing_ok=True)
    columns: str | list[str] = [text, "other"] if pair else text
    recipe = written(path, text, train=text, dev=text, text=columns, label=text)
    data = recipe.data
    assert data.train == data.dev == data.label == recipe.teacher.model == text
    assert data.text == columns


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("my mails.toml", "my-mails"),
        (".hidden.toml", "hidden"),
        ("-x-.toml", "x"),
        ("postüberblick.toml", "post-berblick"),
        ("日本.toml", "recipe"),
        ("v1.2_b.toml", "v1.2_b"),
    ],
)
def test_the_file_name_becomes_a_valid_recipe_name(tmp_path: Path, file: str, name: str) -> None:
    assert written(tmp_path / file).name == name


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(FactoryError, match=r"r\.toml: exists already; give another path"):
        written(path)
    assert path.read_text(encoding="utf-8") == "mine"
