"""A local folder laid out as the hub lays out GLUE: configs, Parquet files, class names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.fake_hub_files import CLASSES, COLUMNS, Rows, write_glue
from helpers.pipeline_run import ROOT

from factory.recipe.file import load_recipe

Load = Callable[..., Any]
# the settings of [data], each once: the recipes of a task share them
DATA = {
    repr(settings): settings
    for path in sorted((ROOT / "recipes" / "glue").glob("*.toml"))
    for settings in [load_recipe(path).data]
}
MRPC = {"hub": "glue", "config": "mrpc", "text": ["sentence1", "sentence2"]}
QQP = {"hub": "glue", "config": "qqp", "text": ["question1", "question2"]}


def rows_of(config: str, split: str, targets: Sequence[float]) -> Rows:
    width = len(COLUMNS[config])
    return [
        (*(f"{config} {split} {number} {column}" for column in range(width)), target)
        for number, target in enumerate(targets)
    ]


@pytest.fixture
def glue(tmp_path: Path) -> Path:
    """Every config of the nine columns with a few rows; hidden test labels, as on the hub."""
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
    loaded = load({}, **MRPC)
    assert loaded.dataset.labels == ("not_equivalent", "equivalent")
    assert loaded.rows()[:2] == [
        (("mrpc train 0 0", "mrpc train 0 1"), "not_equivalent"),
        (("mrpc train 1 0", "mrpc train 1 1"), "equivalent"),
    ]
    assert len(loaded.rows("dev")) == 3
    stsb = load({}, **{**MRPC, "config": "stsb"}, task="regression").dataset
    assert stsb.train.targets == pytest.approx([0.0, 5.0, 2.5, 3.8, 1.25, 4.4])


@pytest.mark.parametrize(("config", "task"), [("mrpc", "classification"), ("stsb", "regression")])
def test_a_test_split_with_hidden_labels(load: Load, glue: Path, config: str, task: str) -> None:
    """As a number, the hidden score -1 of STS-B looks like any other."""
    loaded = load({}, **{**MRPC, "config": config}, task=task, test_split="test")
    loaded.problem(
        f"glue ({config}), split test, rows 1, 2, 3, 4: the split has no labels",
        "-1 marks a hidden label",
        "choose another split as data.test_split",
    )


def test_unknown_and_missing_configs_are_listed(load: Load, glue: Path) -> None:
    assert "mrpc" in load({}, **{**MRPC, "config": "mrcp"}).problem("mrcp")
    problem = load({}, hub="glue", text=["sentence1", "sentence2"]).problem("config")
    assert "mrpc" in problem


def test_an_empty_side_of_a_pair_may_be_allowed_and_null_may_not(
    load: Load, tmp_path: Path
) -> None:
    """Two training pairs of the hub's QQP have an empty second question."""
    rows: dict[str, Rows] = {
        "train": [("a", "b", 0), ("c", "", 1), ("d", " ", 0)],
        "validation": [("e", "f", 0)],
    }
    write_glue(tmp_path / "glue", {"qqp": rows})
    load({}, **QQP).problem(
        "split train, rows 2, 3: 2 rows with an empty text in column 'question2'",
        "data.allow_empty = true",
    )
    loaded = load({}, **QQP, allow_empty=True)
    loaded.notice("2 rows with an empty text in column 'question2' (data.allow_empty)")
    assert [inputs for inputs, _ in loaded.rows()] == [("a", "b"), ("c", ""), ("d", " ")]
    rows["train"] = [("a", None, 0), ("b", "c", 1)]
    write_glue(tmp_path / "null" / "glue", {"qqp": rows})
    nulls = load({}, **{**QQP, "hub": "null/glue"}, allow_empty=True)
    nulls.problem("row 1: 1 row without a text (null)")


@pytest.mark.parametrize("settings", DATA.values(), ids=lambda settings: settings.config)
def test_the_data_of_every_shipped_recipe(load: Load, glue: Path, settings: Any) -> None:
    """Columns, splits and class names, which keep the order of the card."""
    assert settings.hub == "nyu-mll/glue"
    given = settings.model_dump(exclude_unset=True) | {"hub": "glue"}
    loaded = load({}, **given)
    assert loaded.problems == ()
    assert loaded.dataset.labels == (CLASSES[settings.config] or ("value",))
    assert len(loaded.dataset.train) == 6
    if settings.config == "mnli":
        assert loaded.dataset.dev.texts[0] == "mnli validation_matched 0 0"
        assert loaded.dataset.test.texts[0] == "mnli validation_mismatched 0 0"
    else:
        assert loaded.dataset.test is None
