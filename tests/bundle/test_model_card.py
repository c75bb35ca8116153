"""The model card's metadata, read by the Hub's own loader and against its documented keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.minimal_recipe import recipe_tree
from helpers.scored_bundle import write_scored_bundle
from huggingface_hub import ModelCard

from factory.bundle.model_card import CardSources, card_sources, model_card
from factory.errors import RecipeError
from factory.recipe.file import parse_recipe
from factory.recipe.task import TASK_TRAITS
from factory.store import Artifact, write_json

# https://github.com/huggingface/hub-docs/blob/main/modelcard.md, what we write of it
DOCUMENTED = {
    "language", "license", "library_name", "tags", "datasets", "metrics", "base_model",
    "pipeline_tag", "model-index",
}  # fmt: skip
SAID = {
    "card.license": "apache-2.0",
    "card.language": ["en", "de"],
    "card.tags": ["support", "onnx"],
    "card.datasets": ["org/tickets"],
    "card.base_model": ["org/base"],
}


def load(
    tmp_path: Path,
    changes: Mapping[str, Any] | None = None,
    sources: CardSources = CardSources(),  # noqa: B008 - frozen
    **arguments: Any,
) -> ModelCard:
    manifest = write_scored_bundle(tmp_path / "bundle", changes, **arguments)
    file = tmp_path / "README.md"
    file.write_text(model_card(manifest, sources), encoding="utf-8")
    return ModelCard.load(file)


def test_what_the_recipe_says_is_in_the_card(tmp_path: Path) -> None:
    card = load(tmp_path, SAID, CardSources(("org/teacher",), ("glue",)))
    data = card.data.to_dict()
    assert set(data) == DOCUMENTED
    assert data["license"] == "apache-2.0"
    assert data["language"] == ["en", "de"]
    assert data["base_model"] == ["org/base", "org/teacher"]
    assert data["datasets"] == ["org/tickets", "glue"]
    assert data["pipeline_tag"] == "text-classification"
    assert data["tags"].count("onnx") == 1
    assert {"support", "classification", "fp32"} <= set(data["tags"])
    assert data["metrics"] == ["accuracy"]
    assert card.text.lstrip().startswith("# tiny\n")


def test_what_nobody_knows_is_left_out(tmp_path: Path) -> None:
    data = load(tmp_path).data.to_dict()
    assert not {"license", "language", "base_model", "datasets"} & set(data)


def test_the_results_are_those_of_the_served_form(tmp_path: Path) -> None:
    card = load(tmp_path)
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.75)
    assert (result.dataset_split, result.dataset_type) == ("dev", "own-files")
    (index,) = card.data.to_dict()["model-index"]
    assert index["name"] == "tiny"
    assert set(index["results"][0]) == {"task", "dataset", "metrics"}
    assert index["results"][0]["task"]["type"] == "text-classification"


@pytest.mark.parametrize("task", sorted(TASK_TRAITS))
def test_every_task_has_results(tmp_path: Path, task: str) -> None:
    more = {"thresholds": [0.5] * 3} if task == "multilabel" else {}
    card = load(tmp_path, task=task, **more)
    assert len(card.data.eval_results) == 1
    assert task in card.data.tags


def test_names_that_yaml_would_misread_survive(tmp_path: Path) -> None:
    card = load(tmp_path, {"card.tags": ["no", "1.0", "a: b", "---"], "card.language": ["no"]})
    assert {"no", "1.0", "a: b", "---"} <= set(card.data.tags)
    assert card.data.language == ["no"]
    block = (tmp_path / "README.md").read_text("utf-8").split("\n---\n")[0].removeprefix("---\n")
    assert yaml.safe_load(block)["language"] == ["no"]


@pytest.mark.parametrize(
    "changes",
    [
        {"card.license": "Apache License 2.0"},
        {"card.language": ["English"]},
        {"card.language": "en"},
        {"card.datasets": ["a/b/c"]},
        {"card.tag": ["x"]},
    ],
)
def test_what_the_hub_would_refuse_is_refused_in_the_recipe(changes: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="card"):
        parse_recipe(recipe_tree(changes))


def artifact(folder: Path, name: str, settings: dict[str, Any]) -> Artifact:
    directory = folder / name
    directory.mkdir()
    write_json(directory / "artifact.json", {"settings": settings})
    return Artifact(directory, name, {})


@pytest.mark.parametrize(
    ("teacher", "start", "source", "expected"),
    [
        ("hub:org/bert@main", None, {"hub": "nyu-mll/glue"}, (("org/bert",), ("nyu-mll/glue",))),
        ("hub:o/b@v1", "hub:o/tiny@main", {"files": {}}, (("o/b", "o/tiny"), ())),
        ("sha256:00", "general:11", {"hub": "folder", "sha256": "22"}, ((), ())),
        ("hub:o/b@main", "hub:o/b@main", {"hub": "x"}, (("o/b",), ("x",))),
    ],
)
def test_names_from_the_hub_are_found_and_local_ones_are_not(
    tmp_path: Path, teacher: str, start: str | None, source: dict[str, Any], expected: Any
) -> None:
    artifacts = {
        "teacher": artifact(tmp_path, "teacher", {"model": teacher}),
        "student": artifact(tmp_path, "student", {"start": start}),
        "data": artifact(tmp_path, "data", {"source": source}),
    }
    found = card_sources(artifacts)
    assert (found.base_models, found.datasets) == expected
