"""What `factory init` writes: valid as it stands, whatever it was given, and never over a file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.errors import FactoryError
from factory.recipe.file import load_recipe, parse_recipe
from factory.scaffold.template import write_template

USUAL: dict[str, Any] = {
    "train": "data/train.csv",
    "dev": None,
    "text_columns": ["text"],
    "label": "label",
    "teacher": "google-bert/bert-base-uncased",
}


def test_the_usual_recipe(tmp_path: Path) -> None:
    write_template(tmp_path / "mails.toml", **USUAL)
    recipe = load_recipe(tmp_path / "mails.toml")
    assert recipe.name == "mails"
    assert (recipe.data.train, recipe.data.dev, recipe.data.dev_fraction) == (
        "data/train.csv", None, 0.1
    )  # fmt: skip
    assert recipe.teacher.model == "google-bert/bert-base-uncased"
    assert (recipe.student.layers, recipe.student.hidden) == (4, 312)
    assert recipe.gate.min_retention == 0.968
    assert recipe.quantize.forms == "auto"
    assert recipe.gate.min_agreement == 0.98
    text = (tmp_path / "mails.toml").read_text(encoding="utf-8")
    assert "factory run mails.toml" in text
    assert text.count("#") > 10  # commented


@pytest.mark.parametrize("task", ["classification", "regression", "multilabel"])
def test_every_task(tmp_path: Path, task: Any) -> None:
    write_template(tmp_path / "r.toml", **USUAL, task=task)
    recipe = load_recipe(tmp_path / "r.toml")
    assert recipe.data.task == task
    text = (tmp_path / "r.toml").read_text(encoding="utf-8")
    assert ("label_separator" in text) == (task == "multilabel")


def test_a_dev_file_and_a_pair_of_columns(tmp_path: Path) -> None:
    given_values = {**USUAL, "dev": "dev.tsv", "text_columns": ["premise", "claim"]}
    write_template(tmp_path / "r.toml", **given_values)
    recipe = load_recipe(tmp_path / "r.toml")
    assert (recipe.data.dev, recipe.data.dev_fraction) == ("dev.tsv", None)
    assert recipe.data.text_columns == ("premise", "claim")


@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    pair=st.booleans(),
    dev=st.booleans(),
)
def test_any_names_come_back_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, text: str, pair: bool, dev: bool
) -> None:
    path = tmp_path_factory.mktemp("init") / "r.toml"
    columns = [text, "other"] if pair else [text]
    write_template(
        path,
        train=text,
        dev=text if dev else None,
        text_columns=columns,
        label=text,
        teacher=text,
    )
    with path.open("rb") as handle:
        recipe = parse_recipe(tomllib.load(handle))
    assert recipe.data.train == recipe.data.label == recipe.teacher.model == text
    assert recipe.data.dev == (text if dev else None)
    assert recipe.data.text_columns == tuple(columns)


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
def test_the_name_of_the_file_becomes_a_valid_name(tmp_path: Path, file: str, name: str) -> None:
    write_template(tmp_path / file, **USUAL)
    assert load_recipe(tmp_path / file).name == name


def test_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(FactoryError, match=r"r\.toml: exists already; give another path"):
        write_template(path, **USUAL)
    assert path.read_text(encoding="utf-8") == "mine"
