"""The metadata of the model card, read by the Hub's own loader."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.minimal_recipe import recipe_tree
from helpers.scored_bundle import scored_manifest
from huggingface_hub import ModelCard

from factory.bundle.model_card import CardSources, card_sources, model_card
from factory.errors import RecipeError
from factory.recipe.file import parse_recipe
from factory.recipe.task import TASK_TRAITS
from factory.store import Artifact, write_json

NO_SOURCES = CardSources()
# https://github.com/huggingface/hub-docs/blob/main/modelcard.md, the keys that we write
DOCUMENTED = {
    "language", "license", "library_name", "tags", "datasets", "metrics", "base_model",
    "pipeline_tag", "model-index",
}  # fmt: skip
CARD = {
    "card.license": "apache-2.0",
    "card.language": ["en", "de"],
    "card.tags": ["support", "onnx"],
    "card.datasets": ["org/tickets"],
    "card.base_model": ["org/base"],
}


def load(
    changes: Mapping[str, Any] | None = None,
    sources: CardSources = NO_SOURCES,
    task: str = "classification",
) -> ModelCard:
    thresholds = {"thresholds": [0.5] * 2} if task == "multilabel" else {}
    return ModelCard(model_card(scored_manifest(task, changes, **thresholds), sources))


def test_section_card_of_the_recipe_is_in_the_metadata() -> None:
    card = load(CARD, CardSources(("org/teacher",), ("glue",)))
    data = card.data.to_dict()
    assert set(data) == DOCUMENTED
    assert data["license"] == "apache-2.0"
    assert data["language"] == ["en", "de"]
    assert data["base_model"] == ["org/base", "org/teacher"]
    assert data["datasets"] == ["org/tickets", "glue"]
    assert data["pipeline_tag"] == "text-classification"
    assert data["tags"].count("onnx") == 1
    assert {"support", "classification", "fp32"} <= set(data["tags"])
    assert data["metrics"] == ["accuracy", "balanced_accuracy"]
    assert card.text.lstrip().startswith("# mails\n")


def test_unknown_keys_are_left_out() -> None:
    data = load().data.to_dict()
    assert not {"license", "language", "base_model", "datasets"} & set(data)


@pytest.mark.parametrize("task", sorted(TASK_TRAITS))
def test_results_are_those_of_the_served_form(task: str) -> None:
    card = load(task=task)
    assert [one.metric_value for one in card.data.eval_results] == [0.75, 0.65, 0.55, 0.45]
    first = card.data.eval_results[0]
    assert (first.dataset_split, first.dataset_type) == ("dev", "own-files")
    (index,) = card.data.to_dict()["model-index"]
    assert index["name"] == "mails"
    assert index["results"][0]["task"]["type"] == "text-classification"
    assert task in card.data.tags


def test_names_that_yaml_would_misread_are_quoted() -> None:
    card = load({"card.tags": ["no", "1.0", "a: b", "---"], "card.language": ["no"]})
    assert {"no", "1.0", "a: b", "---"} <= set(card.data.tags)
    block = str(card).split("\n---\n")[0].removeprefix("---\n")
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
def test_metadata_that_the_hub_rejects_is_a_recipe_error(changes: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="card"):
        parse_recipe(recipe_tree(changes))


@pytest.mark.parametrize(
    ("teacher", "start", "source", "expected"),
    [
        ("hub:org/bert@main", None, {"hub": "nyu-mll/glue"}, (("org/bert",), ("nyu-mll/glue",))),
        ("hub:o/b@v1", "hub:o/tiny@main", {"files": {}}, (("o/b", "o/tiny"), ())),
        ("sha256:00", "general:11", {"hub": "folder", "sha256": "22"}, ((), ())),
        ("hub:o/b@main", "hub:o/b@main", {"hub": "x"}, (("o/b",), ("x",))),
    ],
)
def test_models_and_data_of_the_hub_are_listed_and_local_ones_are_not(
    tmp_path: Path, teacher: str, start: str | None, source: dict[str, Any], expected: Any
) -> None:
    artifacts = {}
    settings = {"teacher": {"model": teacher}, "student": {"start": start}}
    for name, content in {**settings, "data": {"source": source}}.items():
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "artifact.json", {"settings": content})
        artifacts[name] = Artifact(tmp_path / name, name, {})
    found = card_sources(artifacts, artifacts["data"])
    assert (found.base_models, found.datasets) == expected
