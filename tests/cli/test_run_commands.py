"""validate, plan and run on recipes and data that are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers.pipeline_run import Line, error_of, factory_here, write_recipe


@pytest.mark.parametrize("command", ["validate", "plan", "run"])
@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (None, ["no such file", "`factory init` writes one"]),
        ('name = "a"\ndata = = 1\n', ["not valid TOML", "line 2"]),
        ('name = "a"\n[daat]\n', ["daat", "did you mean data"]),
        ('name = "a"', ["data", "teacher"]),
    ],
)
def test_a_bad_recipe_exits_with_2(
    tmp_path: Path, command: str, content: str | None, parts: Sequence[str]
) -> None:
    recipe = tmp_path / "r.toml"
    if content is not None:
        recipe.write_text(content, encoding="utf-8")
    message = error_of(factory_here(command, recipe), 2)
    assert message.startswith(f"error: {recipe}:")
    for part in parts:
        assert part in message


@pytest.mark.parametrize("command", ["validate", "plan", "run"])
@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("distill.prediction.temprature=2", ["temprature", "did you mean", "temperature"]),
        ("gate.min_value=high", ["gate.min_value"]),
        ("gate.min_value", ["--set gate.min_value", "expected KEY.PATH=VALUE"]),
        ("teacher.model=./nowhere", ["teacher.model", "no such folder", "nowhere"]),
    ],
)
def test_a_bad_override_exits_with_2(
    line: Line, tmp_path: Path, command: str, override: str, parts: Sequence[str]
) -> None:
    arguments = [] if command == "validate" else ["--store", tmp_path / "runs"]
    message = error_of(factory_here(command, line.recipe, "--set", override, *arguments), 2)
    for part in parts:
        assert part in message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", ["validate", "plan", "run"])
def test_missing_data_names_file_and_key(line: Line, tmp_path: Path, command: str) -> None:
    arguments = [] if command == "validate" else ["--store", tmp_path / "runs"]
    result = factory_here(command, line.recipe, "--set", "data.dev=dve.tsv", *arguments)
    message = error_of(result, 1)
    assert "data.dev: no such file dve.tsv" in message
    assert "similar names: dev.tsv" in message


def test_bad_data_exits_with_1_and_names_the_lines(line: Line, tmp_path: Path) -> None:
    for name in ("dev.tsv", "test.tsv"):
        (tmp_path / name).write_bytes(line.recipe.with_name(name).read_bytes())
    (tmp_path / "teacher").symlink_to(line.recipe.with_name("teacher"))
    train = line.recipe.with_name("train.tsv").read_text(encoding="utf-8").splitlines()
    train[3] = "\tcalm"
    (tmp_path / "train.tsv").write_text("\n".join(train) + "\n", encoding="utf-8")
    recipe = write_recipe(tmp_path / "r.toml")
    message = error_of(factory_here("run", recipe, "--store", tmp_path / "runs"), 1)
    assert "error: the data cannot be used:" in message
    assert "train.tsv, line 4" in message or "train.tsv: line 4" in message
    assert not [path for path in (tmp_path / "runs").glob("data-*") if path.suffix != ".partial"]


def test_a_store_that_is_a_file_is_refused(line: Line, tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    result = factory_here("run", line.recipe, "--store", tmp_path / "runs")
    assert "runs' is a file" in error_of(result, 2)


@pytest.mark.parametrize("command", ["run", "plan"])
def test_an_unreadable_record_is_named(line: Line, tmp_path: Path, command: str) -> None:
    store = line.copy_store(tmp_path)
    (record,) = store.glob("bundle-*/artifact.json")
    record.write_text("{", encoding="utf-8")
    arguments = ["--set", "gate.min_value=0.5"] if command == "plan" else []
    result = factory_here(command, line.recipe, "--store", store, *arguments)
    message = error_of(result, 1)
    assert str(record) in message
    assert "cannot be read as JSON" in message
