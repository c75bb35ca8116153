"""A local folder laid out as the hub lays out GLUE: configs, parquet files, class names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.fake_hub_files import CLASSES, COLUMNS, Rows, write_glue
from helpers.pipeline_run import ROOT
from helpers.tiny_models import tiny_bert

from factory.data.dataset import Dataset
from factory.errors import TeacherError
from factory.recipe.file import load_recipe
from factory.recipe.training import TeacherSettings
from factory.teacher.load import match_labels

Load = Callable[..., Any]
RECIPES = sorted((ROOT / "recipes" / "glue").glob("*.toml"))


def rows_of(config: str, split: str, targets: Sequence[float]) -> Rows:
    width = len(COLUMNS[config])
    return [
        (*(f"{config} {split} {number} {column}" for column in range(width)), target)
        for number, target in enumerate(targets)
    ]


@pytest.fixture
def glue(tmp_path: Path) -> Path:
    """Every config of the nine columns with a few rows; test labels kept back, as on the hub."""
    configs: dict[str, dict[str, Rows]] = {}
    for config, names in CLASSES.items():
        train = [n % len(names) for n in range(6)] if names else [0.0, 5.0, 2.5, 3.8, 1.25, 4.4]
        dev = train[:3] if config != "rte" else train[:2]
        held = ["validation_matched", "validation_mismatched"]
        held = held if config == "mnli" else ["validation"]
        configs[config] = {"train": rows_of(config, "train", train)}
        for split in held:
            configs[config][split] = rows_of(config, split, dev)
            hidden = rows_of(config, split.replace("validation", "test"), [-1] * 4)
            configs[config][split.replace("validation", "test")] = hidden
    return write_glue(tmp_path / "glue", configs)


def test_a_config_is_read_with_its_columns_and_class_names(load: Load, glue: Path) -> None:
    loaded = load({}, hub="glue", config="mrpc", text=["sentence1", "sentence2"])
    assert loaded.dataset.labels == ("not_equivalent", "equivalent")
    assert loaded.rows()[:2] == [
        (("mrpc train 0 0", "mrpc train 0 1"), "not_equivalent"),
        (("mrpc train 1 0", "mrpc train 1 1"), "equivalent"),
    ]
    assert len(loaded.rows("dev")) == 3
    assert loaded.dataset.train.targets == [0, 1, 0, 1, 0, 1]


def test_the_order_of_the_card_is_the_order_of_the_outputs(load: Load, glue: Path) -> None:
    """Neither alphabetical nor of first appearance."""
    loaded = load(
        {},
        hub="glue",
        config="mnli",
        text=["premise", "hypothesis"],
        dev_split="validation_matched",
        test_split="validation_mismatched",
    )
    assert loaded.dataset.labels == ("entailment", "neutral", "contradiction")
    assert loaded.dataset.dev.texts[0] == "mnli validation_matched 0 0"
    assert loaded.dataset.test.texts[0] == "mnli validation_mismatched 0 0"


def test_a_regression_config_is_read_as_numbers(load: Load, glue: Path) -> None:
    loaded = load({}, hub="glue", config="stsb", text=["sentence1", "sentence2"], task="regression")
    assert loaded.dataset.train.targets == [
        0.0,
        5.0,
        2.5,
        pytest.approx(3.8),
        1.25,
        pytest.approx(4.4),
    ]


@pytest.mark.parametrize("config", ["mrpc", "cola", "qnli"])
def test_a_test_split_without_labels_is_refused_with_help(
    load: Load, glue: Path, config: str
) -> None:
    columns = COLUMNS[config]
    text = list(columns) if len(columns) > 1 else columns[0]
    loaded = load({}, hub="glue", config=config, text=text, test_split="test")
    loaded.problem(
        f"glue ({config}), split test, rows 1, 2, 3, 4: the split has no labels",
        "-1 marks a hidden label",
        "choose another split as data.test_split",
    )


def test_a_regression_test_split_without_numbers_is_refused(load: Load, glue: Path) -> None:
    """STS-B's hidden scores are -1 too, which as a number looks like any other."""
    text = ["sentence1", "sentence2"]
    settings = {"hub": "glue", "config": "stsb", "text": text, "task": "regression"}
    loaded = load({}, **settings, test_split="test")
    loaded.problem("glue (stsb), split test", "the split has no labels", "data.test_split")


def test_a_config_that_is_not_there_is_told_with_those_that_are(load: Load, glue: Path) -> None:
    problem = load({}, hub="glue", config="mrcp", text=["sentence1", "sentence2"]).problem("mrcp")
    assert "mrpc" in problem
    problem = load({}, hub="glue", text=["sentence1", "sentence2"]).problem("config")
    assert "mrpc" in problem


def test_an_empty_side_of_a_pair_is_accepted_when_asked(load: Load, tmp_path: Path) -> None:
    """Two training pairs of the hub's QQP have an empty second question."""
    rows: dict[str, Rows] = {
        "train": [("a", "b", 0), ("c", "", 1), ("d", " ", 0)],
        "validation": [("e", "f", 0)],
    }
    write_glue(tmp_path / "glue", {"qqp": rows})
    settings = {"hub": "glue", "config": "qqp", "text": ["question1", "question2"]}
    load({}, **settings).problem(
        "split train, rows 2, 3: 2 rows with an empty text in column 'question2'",
        "data.allow_empty = true",
    )
    loaded = load({}, **settings, allow_empty=True)
    loaded.notice("2 rows with an empty text in column 'question2' (data.allow_empty)")
    assert [inputs for inputs, _ in loaded.rows()] == [("a", "b"), ("c", ""), ("d", " ")]


def test_null_is_refused_even_so(load: Load, tmp_path: Path) -> None:
    rows: dict[str, Rows] = {
        "train": [("a", None, 0), ("b", "c", 1)],
        "validation": [("e", "f", 0)],
    }
    write_glue(tmp_path / "glue", {"qqp": rows})
    settings = {"hub": "glue", "config": "qqp", "text": ["question1", "question2"]}
    load({}, **settings, allow_empty=True).problem("row 1: 1 row without a text (null)")


# teachers


def test_mnli_outputs_in_the_references_order_are_matched_by_name(load: Load, glue: Path) -> None:
    """Contradiction, entailment, neutral is the reference's order; the hub's is another."""
    settings = {"hub": "glue", "config": "mnli", "text": ["premise", "hypothesis"]}
    dataset: Dataset = load({}, **settings, dev_split="validation_matched").dataset
    theirs = tiny_bert(("contradiction", "entailment", "neutral")).config
    teacher = TeacherSettings(model="m", fine_tune=False)
    assert match_labels(theirs, teacher, dataset) == [1, 2, 0]
    shouted = tiny_bert(("CONTRADICTION", "NEUTRAL", "ENTAILMENT")).config
    assert match_labels(shouted, teacher, dataset) == [2, 1, 0]
    nameless = tiny_bert(("LABEL_0", "LABEL_1", "LABEL_2")).config
    with pytest.raises(TeacherError, match=r"LABEL_0, LABEL_1, LABEL_2.*teacher\.labels"):
        match_labels(nameless, teacher, dataset)
    named = TeacherSettings(
        model="m", fine_tune=False, labels=["contradiction", "entailment", "neutral"]
    )
    assert match_labels(nameless, named, dataset) == [1, 2, 0]


# the recipes


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_reads_its_task_from_the_folder(load: Load, glue: Path, path: Path) -> None:
    """Columns, splits and class names of every shipped recipe, on the hub's layout."""
    settings = load_recipe(path).data
    assert settings.hub == "nyu-mll/glue"
    assert settings.config is not None
    given = settings.model_dump(exclude_unset=True) | {"hub": "glue"}
    loaded = load({}, **given)
    assert loaded.problems == ()
    assert loaded.dataset.labels == (CLASSES[settings.config] or ("value",))
    assert len(loaded.dataset.train) == 6
    assert (loaded.dataset.test is not None) == (settings.config == "mnli")
