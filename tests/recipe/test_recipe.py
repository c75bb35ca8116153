"""The settings of a recipe: strict, frozen, and checked across sections."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.minimal_recipe import recipe_tree
from pydantic import ValidationError

from factory.errors import RecipeError
from factory.recipe.data import DataSettings
from factory.recipe.file import parse_recipe
from factory.recipe.training import GeneralSettings

HUB = {"data.train": ..., "data.dev": ..., "data.hub": "org/set"}
REGRESSION = {"data.task": "regression", "gate.metric": "pearson"}


def problems_of(changes: dict[str, Any]) -> list[str]:
    """The problems of a changed minimal recipe."""
    with pytest.raises(RecipeError) as caught:
        parse_recipe(recipe_tree(changes))
    return list(caught.value.problems)


def test_the_defaults_are_the_documented_ones() -> None:
    recipe = parse_recipe(recipe_tree())
    assert (recipe.student.layers, recipe.student.hidden, recipe.student.heads) == (4, 312, 12)
    assert recipe.student.intermediate == 1200
    assert recipe.data.max_length == 128
    assert recipe.distill.layer_map == "uniform"
    assert recipe.distill.prediction.temperature == 1.0
    assert recipe.quantize.forms == "auto"


@pytest.mark.parametrize(
    ("shape", "numbers"),
    [
        ("4x312", (4, 312, 12, 1200)),
        ("6x256", (6, 256, 8, 1024)),
        ("3x384", (3, 384, 12, 1536)),
        ("2x128", (2, 128, 2, 512)),
    ],
)
def test_a_named_shape_is_stored_as_its_four_numbers(
    shape: str, numbers: tuple[int, int, int, int]
) -> None:
    keys = ("layers", "hidden", "heads", "intermediate")
    named = parse_recipe(recipe_tree({"student.shape": shape}))
    spelled = {f"student.{key}": number for key, number in zip(keys, numbers, strict=True)}
    assert named.model_dump() == parse_recipe(recipe_tree(spelled)).model_dump()
    wider = parse_recipe(recipe_tree({"student.shape": shape, "student.intermediate": 96}))
    assert (wider.student.layers, wider.student.intermediate) == (numbers[0], 96)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("name", 7, "valid string (given: 7)"),
        ("name", "two words", "match pattern"),
        ("data.train", ["a.tsv"], 'valid string (given: ["a.tsv"])'),
        ("data.max_length", "128", 'valid integer (given: "128")'),
        ("data.max_length", 128.0, "valid integer (given: 128.0)"),
        ("data.max_length", True, "valid integer (given: true)"),
        ("data.max_length", 7, "greater than or equal to 8 (given: 7)"),
        ("data.max_length", 513, "less than or equal to 512 (given: 513)"),
        ("data.labels", ["only"], "at least 2 items"),
        ("data.labels", ["a", 1], "valid string (given: 1)"),
        ("data.task", "ranking", "'classification', 'regression' or 'multilabel'"),
        ("student.shape", "5x100", "'3x384'"),
        ("teacher.epochs", "3", 'valid number (given: "3")'),
        ("teacher.epochs", 0, "greater than 0 (given: 0)"),
        ("teacher.fine_tune", 1, "valid boolean (given: 1)"),
        ("teacher.fine_tune", "yes", 'valid boolean (given: "yes")'),
        ("teacher.warmup", 1.5, "less than or equal to 1 (given: 1.5)"),
        ("teacher.learning_rate", float("inf"), "finite number (given: Infinity)"),
        ("teacher.weight_decay", float("nan"), "finite number (given: NaN)"),
        ("gate.min_gain", float("nan"), "finite number (given: NaN)"),
        ("student", 4, "valid dictionary"),
        ("student.layers", 0, "greater than 0 (given: 0)"),
        ("distill.prediction.temperature", 0.0, "greater than 0 (given: 0.0)"),
        ("distill.intermediate.hidden_weight", -1.0, "greater than or equal to 0 (given: -1.0)"),
        ("gate.min_retention", 0.0, "greater than 0 (given: 0.0)"),
        ("gate.max_size_bytes", 1.5, "valid integer (given: 1.5)"),
        ("export.opset", 13, "greater than or equal to 14 (given: 13)"),
        ("export.opset", 21, "less than or equal to 20 (given: 21)"),
        ("quantize.forms", [], "at least 1 item"),
        ("quantize.forms", "int8-static", 'or "auto" (given: "int8-static")'),
        ("quantize.forms", ["int8-static", "int9"], '(given: "int9")'),
    ],
)
def test_a_wrong_value_is_reported_with_its_path(key: str, value: Any, message: str) -> None:
    (problem,) = problems_of({key: value})
    assert problem.startswith(f"{key}: ")
    assert message in problem


@pytest.mark.parametrize(
    ("key", "value", "messages"),
    [
        ("data.text", ["a"], ["valid string", "at least 2 items"]),
        ("data.text", ["a", "b", "c"], ["valid string", "at most 2 items"]),
        ("distill.layer_map", "uniforn", ["'uniform', 'top' or 'bottom'", "valid list"]),
        ("distill.layer_map", [3, -6, 9, 12], ["'uniform', 'top'", "greater than 0 (given: -6)"]),
    ],
)
def test_a_value_of_several_kinds_is_reported_for_each_kind(
    key: str, value: Any, messages: list[str]
) -> None:
    problems = problems_of({key: value})
    assert len(problems) == len(messages)
    for problem, message in zip(problems, messages, strict=True):
        assert problem.startswith(f"{key}: "), "no internals of the validator in the path"
        assert message in problem


def test_an_integer_is_accepted_for_a_float() -> None:
    assert parse_recipe(recipe_tree({"teacher.epochs": 2})).teacher.epochs == 2.0


@pytest.mark.parametrize(
    ("changes", "path", "message"),
    [
        ({"data.train": ...}, "data", "either train (a file) or hub"),
        ({"data.hub": "org/set"}, "data", "either train (a file) or hub"),
        ({"data.dev": ...}, "data", "either dev (a file) or dev_fraction"),
        ({"data.dev_fraction": 0.1}, "data", "either dev (a file) or dev_fraction"),
        (
            HUB | {"data.dev_fraction": 0.1, "data.dev_split": "dev"},
            "data",
            "either dev_split or dev_fraction",
        ),
        (HUB | {"data.dev_split": None}, "data", "either dev_split or dev_fraction"),
        (HUB | {"data.dev": "dev.tsv"}, "data", "a hub data set has dev_split and test_split"),
        (HUB | {"data.test": "test.tsv"}, "data", "a hub data set has dev_split and test_split"),
        ({"data.dev": ..., "data.dev_fraction": 0.0}, "data", "must be between 0 and 1"),
        ({"data.dev": ..., "data.dev_fraction": 1.0}, "data", "must be between 0 and 1"),
        (REGRESSION | {"data.labels": ["a", "b"]}, "data", "labels belong to classification"),
        ({"student.hidden": 310}, "student", "hidden 310 is not a multiple of heads 12"),
        ({"gate": {}}, "recipe", "gate has no quality rule"),
        ({"gate": {"max_size_bytes": 1}}, "recipe", "gate has no quality rule"),
        ({"gate.metric": "spearman"}, "recipe", "spearman does not fit data.task classification"),
        (
            {"data.task": "regression", "gate.metric": "accuracy"},
            "recipe",
            "accuracy does not fit data.task regression",
        ),
        (
            REGRESSION | {"gate.min_class_recall": 0.5},
            "recipe",
            "min_class_recall needs data.task = classification",
        ),
        (
            {"data.task": "multilabel", "gate.metric": "accuracy"},
            "recipe",
            "does not fit data.task multilabel, which has micro_f1, macro_f1, exact_match",
        ),
        ({"gate.metric": "micro_f1"}, "recipe", "micro_f1 does not fit data.task classification"),
        ({"data.label_separator": ";"}, "data", 'label_separator needs task = "multilabel"'),
        ({"evaluate.thresholds": 0.4}, "recipe", "evaluate.thresholds needs data.task"),
        ({"gate.min_gain": 0.01}, "recipe", "min_gain needs distill.baseline"),
        ({"gate.split": "test"}, "recipe", 'gate.split = "test" needs data.test'),
        (
            {"data.test_split": "test"},
            "data",
            "config, revision and test_split belong to a hub data set",
        ),
        (HUB | {"gate.split": "test"}, "recipe", 'gate.split = "test" needs data.test'),
        (
            {"distill.layer_map": [6, 12]},
            "recipe",
            "distill.layer_map has 2 entries for 4 layers",
        ),
    ],
)
def test_settings_that_contradict_each_other(
    changes: dict[str, Any], path: str, message: str
) -> None:
    (problem,) = problems_of(changes)
    assert problem.startswith(f"{path}: ")
    assert message in problem


@pytest.mark.parametrize(
    "changes",
    [
        {"data.dev": ..., "data.dev_fraction": 0.1},
        HUB,
        HUB | {"data.dev_fraction": 0.1},
        HUB | {"gate.split": "test", "data.test_split": "test"},
        {"gate.split": "test", "data.test": "test.tsv"},
        {"data.task": "regression"},
        REGRESSION,
        {"student.hidden": 324},
        {"gate": {"max_drop": 0.01}},
        {"gate": {"min_gain": 0.01}, "distill.baseline": "random"},
        {"distill.layer_map": [3, 6, 9, 12]},
        {"distill.layer_map": [2], "student.layers": 1},
    ],
)
def test_settings_that_fit_together(changes: dict[str, Any]) -> None:
    parse_recipe(recipe_tree(changes))


def test_dev_fraction_unsets_the_default_dev_split() -> None:
    assert parse_recipe(recipe_tree(HUB)).data.dev_split == "validation"
    assert parse_recipe(recipe_tree(HUB | {"data.dev_fraction": 0.1})).data.dev_split is None


@pytest.mark.parametrize(
    ("changes", "metric"),
    [
        ({}, "accuracy"),
        ({"gate.metric": "mcc"}, "mcc"),
        ({"data.task": "regression"}, "spearman"),
        ({"data.task": "multilabel"}, "micro_f1"),
        ({"data.task": "multilabel", "gate.metric": "macro_f1"}, "macro_f1"),
        (REGRESSION, "pearson"),
    ],
)
def test_the_metric_is_the_gates_or_the_default_of_the_task(
    changes: dict[str, Any], metric: str
) -> None:
    assert parse_recipe(recipe_tree(changes)).metric == metric


def test_the_corpus_is_one_file_or_several() -> None:
    assert GeneralSettings(corpus="a.txt").corpus_names == ("a.txt",)
    assert GeneralSettings(corpus=["a.txt", "b.jsonl"]).corpus_names == ("a.txt", "b.jsonl")
    assert GeneralSettings(hub="org/set").corpus_names == ()


def test_text_columns_are_one_or_two_names() -> None:
    assert DataSettings(train="t", dev="d", text="body").text_columns == ("body",)
    assert DataSettings(train="t", dev="d", text=["q", "a"]).text_columns == ("q", "a")


# unlabelled text, skewed classes


@pytest.mark.parametrize(
    ("given", "names"),
    [("more.txt", ("more.txt",)), (["a.txt", "b.csv"], ("a.txt", "b.csv")), (..., ())],
)
def test_unlabelled_text_is_one_file_or_several(given: Any, names: tuple[str, ...]) -> None:
    changes = {} if given is ... else {"data.unlabelled": given}
    assert parse_recipe(recipe_tree(changes)).data.unlabelled_names == names


def test_unlabelled_splits_and_files_of_a_hub_set() -> None:
    more = {"data.unlabelled_split": ["test"], "data.unlabelled": "more.txt"}
    data = parse_recipe(recipe_tree({**HUB, **more, "data.unlabelled_limit": 9})).data
    assert (data.unlabelled_split, data.unlabelled_limit) == (["test"], 9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.unlabelled": []}, "data.unlabelled"),
        ({"data.unlabelled_split": ["test"]}, "unlabelled_split belongs to a hub data set"),
        ({**HUB, "data.unlabelled_split": []}, "at least 1 item"),
        (
            {**HUB, "data.unlabelled_split": ["test", "validation"]},
            "unlabelled_split 'validation' is already read with its labels",
        ),
        (
            {**HUB, "data.unlabelled_split": ["test"], "data.test_split": "test"},
            "unlabelled_split 'test' is already read with its labels",
        ),
        ({"data.unlabelled_limit": 5}, "unlabelled_limit needs unlabelled or unlabelled_split"),
        ({"data.unlabelled": "a.txt", "data.unlabelled_limit": 0}, "greater than 0"),
        ({"teacher.class_weights": "sqrt"}, "'none' or 'balanced'"),
        (
            {**REGRESSION, "teacher.class_weights": "balanced"},
            "teacher.class_weights needs data.task = classification",
        ),
        (
            {"teacher.fine_tune": False, "teacher.class_weights": "balanced"},
            "teacher.class_weights needs teacher.fine_tune = true",
        ),
        ({"data.task": "regression", "gate.metric": "f1"}, "gate.metric f1 does not fit"),
        ({"student.start": "general"}, "needs the section [general] with a corpus"),
        ({"general.seed": 1}, "general: give either corpus (files) or hub (a data set name)"),
        ({"general.corpus": "c.txt", "general.hub": "h"}, "give either corpus (files) or hub"),
        ({"general.corpus": "c.txt", "general.config": "x"}, "belong to a hub data set"),
        ({"general.corpus": []}, "general.corpus: "),
        ({"general.corpus": "c.txt", "general.epochs": 0}, "general.epochs: "),
        ({"general.corpus": "c.txt", "general.max_length": 513}, "general.max_length: "),
        (
            {"general.corpus": "c.txt", "general.layer_weights": [1.0, 1.0]},
            "general.layer_weights has 2 entries for the embedding output and 4 layers",
        ),
        ({"augment.sources": ["mlm"]}, 'sources has "mlm", so set augment.mlm'),
        ({"augment.sources": ["vectors"]}, 'sources has "vectors", so set augment.vectors'),
        (
            {"augment": {"mlm": "m", "sources": ["embeddings"]}},
            'augment.mlm is set, so add "mlm" to sources',
        ),
        ({"augment": {"mlm": "m", "sources": ["mlm", "mlm"]}}, "sources names one source twice"),
        ({"augment.mode": "paper"}, "requires a masked language model; set augment.mlm"),
        ({"augment.mlm_revision": "x"}, "mlm_revision requires augment.mlm"),
        ({"augment.copy": 3}, "did you mean augment.copies?"),
        ({"augment.replace_probability": 0.0}, "augment.replace_probability"),
    ],
)
def test_settings_of_optional_parts_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    assert any(message in line for line in problems_of(changes))


@pytest.mark.parametrize("path", ["name", "data.max_length", "distill.prediction.temperature"])
def test_a_recipe_is_frozen(path: str) -> None:
    node: Any = parse_recipe(recipe_tree())
    *sections, key = path.split(".")
    for section in sections:
        node = getattr(node, section)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(node, key, getattr(node, key))


@pytest.mark.parametrize(
    ("settings", "order"),
    [
        ({}, ("embeddings",)),
        ({"mlm": "m"}, ("mlm", "embeddings")),
        ({"mlm": "m", "vectors": "v"}, ("mlm", "vectors", "embeddings")),
        ({"mlm": "m", "vectors": "v", "mode": "paper"}, ("mlm", "vectors")),
        ({"mlm": "m", "mode": "paper"}, ("mlm", "embeddings")),
        ({"mlm": "m", "vectors": "v", "sources": ["vectors", "mlm"]}, ("vectors", "mlm")),
    ],
)
def test_the_order_of_sources(settings: dict[str, Any], order: tuple[str, ...]) -> None:
    recipe = parse_recipe(recipe_tree({"augment": settings}))
    assert recipe.augment is not None
    assert recipe.augment.source_order == order
