"""init, validate, completion; doctor has tests of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.pipeline_run import Line, error_of, factory_here

from factory.cli.main import main
from factory.recipe.file import load_recipe


def test_init_writes_a_recipe_that_validates(line: Line, tmp_path: Path) -> None:
    folder = line.recipe.parent
    result = factory_here(
        "init", tmp_path / "my mails.toml", "--train", folder / "train.tsv", "--dev",
        folder / "dev.tsv", "--teacher", folder / "teacher",
    )  # fmt: skip
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'my mails.toml'}\n")
    assert factory_here("validate", tmp_path / "my mails.toml").exit_code == 0
    assert load_recipe(tmp_path / "my mails.toml").name == "my-mails"


def test_init_for_pairs(tmp_path: Path) -> None:
    factory_here(
        "init", tmp_path / "r.toml", "--text", "premise", "--text-pair", "claim", "--label", "y"
    )
    data = load_recipe(tmp_path / "r.toml").data
    assert (data.text_columns, data.label) == (("premise", "claim"), "y")


def test_init_never_overwrites(tmp_path: Path) -> None:
    factory_here("init", tmp_path / "r.toml")
    before = (tmp_path / "r.toml").read_bytes()
    message = error_of(factory_here("init", tmp_path / "r.toml", "--label", "other"), 1)
    assert "exists already; give another path or remove it" in message
    assert (tmp_path / "r.toml").read_bytes() == before


def test_init_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    message = error_of(factory_here("init", tmp_path / "no" / "r.toml"), 1)
    assert message == f"error: {tmp_path / 'no' / 'r.toml'}: No such file or directory\n"


def test_validate(line: Line) -> None:
    result = factory_here("validate", line.recipe)
    assert (result.exit_code, result.stdout) == (0, f"{line.recipe}: valid\n")
    assert sorted(path.name for path in line.recipe.parent.iterdir()) == [
        "dev.tsv", "recipe.toml", "runs", "teacher", "test.tsv", "train.tsv",
    ]  # fmt: skip


def test_validate_prints_the_schema() -> None:
    result = factory_here("validate", "--schema")
    assert result.exit_code == 0
    assert "distill" in json.loads(result.stdout)["properties"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str) -> None:
    result = factory_here("completion", shell)
    assert result.exit_code == 0
    assert f"_FACTORY_COMPLETE={shell}_complete" in result.stdout
    answer = CliRunner().invoke(
        main, prog_name="factory",
        env={"_FACTORY_COMPLETE": "bash_complete", "COMP_WORDS": "factory doc", "COMP_CWORD": "1"},
    )  # fmt: skip
    assert answer.stdout == "plain,doctor\n"
