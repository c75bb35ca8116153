"""The group `factory`: help, usage errors, exit codes, quietness, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from helpers.pipeline_run import ROOT, Line, clean_environment, error_of, factory_here, python

from factory.cli.main import main
from factory.version import VERSION

COMMANDS = (
    "init", "validate", "plan", "run", "general", "augment", "evaluate", "predict",
    "inspect", "verify", "package", "serve", "compare", "publish", "report",
    "doctor", "completion",
)  # fmt: skip


def test_help_lists_the_commands_and_exit_codes() -> None:
    result = factory_here("--help")
    assert result.exit_code == 0
    assert set(main.commands) == set(COMMANDS)
    assert all(f"\n  {name} " in result.stdout for name in COMMANDS)
    assert "0 success, 1 error, 2 usage or recipe, 3 gate failed, 130 interrupted" in (
        " ".join(result.stdout.split())
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command(name: str) -> None:
    result = factory_here(name, "-h")
    assert result.exit_code == 0
    command = main.commands[name]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.opts[0] in result.stdout


def test_version() -> None:
    assert factory_here("--version").stdout == f"factory, version {VERSION}\n"


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from factory.cli.main import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "except SystemExit:\n"
        "    print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    loaded = set(python(program).splitlines()[-1].split())
    assert "click" in loaded
    heavy = {
        "torch", "transformers", "datasets", "pydantic", "pydantic_core", "onnx", "onnxruntime",
        "optimum", "numpy", "pyarrow", "scipy", "sklearn", "tokenizers", "tqdm", "starlette",
    }  # fmt: skip
    assert not loaded & heavy


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fly"], "No such command 'fly'"),
        (["run"], "Missing argument 'RECIPE'"),
        (["run", "r.toml", "--devise", "cpu"], "No such option"),
        (["run", "r.toml", "--device", "tpu"], "'tpu' is not one of 'auto', 'cpu', 'cuda'"),
        (["validate"], "give a recipe, or --schema"),
        (["evaluate", "nowhere", "data.csv"], "Directory 'nowhere' does not exist"),
        (["inspect", "nowhere"], "Directory 'nowhere' does not exist"),
        (["verify", "nowhere"], "Directory 'nowhere' does not exist"),
        (["serve", "nowhere"], "Directory 'nowhere' does not exist"),
        (["serve", ".", "--port", "many"], "'many' is not a valid integer"),
        (["evaluate", ".", "data.csv", "--max-length", "long"], "'long' is not a valid integer"),
        (["evaluate", ".", "data.csv", "--max-length", "0"], "0 is not in the range"),
        (["compare", ".", ".", "--label", "y"], "need --data"),
        (["compare", ".", ".", "--data", "x.csv", "--text-pair", "b"], "--text-pair needs --text"),
        (["publish", ".", "--to", "./folder", "--private"], "--private needs a repository"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], message: str) -> None:
    assert message in error_of(factory_here(*arguments), 2)


def test_a_missing_package_gives_the_install_line(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = factory_here("run", line.recipe, "--store", tmp_path / "runs")
    message = error_of(result, 1)
    assert "pip install 'tinybert-factory[build]'" in message


def test_quiet_before_or_after_the_command(tmp_path: Path) -> None:
    talking = factory_here("init", tmp_path / "a.toml")
    assert "no data file given" in talking.stderr
    for arguments in (["-q", "init", tmp_path / "b.toml"], ["init", tmp_path / "c.toml", "-q"]):
        assert factory_here(*arguments).stderr == ""
    assert factory_here("init", tmp_path / "d.toml").stderr == talking.stderr


def test_an_interrupted_command_exits_with_130(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    os.mkfifo(recipe)
    with subprocess.Popen(
        [sys.executable, "-m", "factory", "validate", recipe],
        cwd=ROOT,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        with recipe.open("w"):  # returns when the command has opened it; then the command waits
            process.send_signal(signal.SIGINT)
            process.wait(timeout=30)
        assert process.returncode == 130
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read() == ""
        assert process.stderr.read() == "error: interrupted; run the same command again to resume\n"


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = [sys.executable, "-m", "factory", "validate", "--schema"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
