"""The command line: every command, its exit codes, and its words for bad input."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click
import httpx
import pytest
from click.testing import CliRunner, Result
from tiny_line import ROOT, Line, clean_environment, python, write_recipe

from factory.cli.main import main
from factory.recipe.file import load_recipe
from factory.version import VERSION
from serving.bundle import MANIFEST_NAME

COMMANDS = (
    "init", "validate", "plan", "run", "general", "augment", "evaluate", "predict",
    "inspect", "verify", "package", "serve", "compare", "publish", "report",
    "doctor", "completion",
)  # fmt: skip


@pytest.fixture(autouse=True)
def same_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    """`run` changes the process's allocator for good, and this process is everybody's."""
    monkeypatch.setattr("factory.runtime.environment.keep_freed_memory", lambda: None)


def call(*arguments: object) -> Result:
    """The command line in this process; an exception that escapes it fails the test."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def error_of(result: Result, code: int) -> str:
    """The message on stderr of a command that failed with the code and printed nothing."""
    assert (result.exit_code, result.stdout) == (code, ""), result.stderr
    assert "Traceback" not in result.stderr
    return str(result.stderr)


# help


def test_help_lists_the_commands_and_exit_codes() -> None:
    result = call("--help")
    assert result.exit_code == 0
    assert set(main.commands) == set(COMMANDS)
    assert all(f"\n  {name} " in result.stdout for name in COMMANDS)
    assert "0 done, 1 error, 2 usage or recipe, 3 gate failed" in " ".join(result.stdout.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_says_what_it_does(name: str) -> None:
    result = call(name, "-h")
    assert result.exit_code == 0
    command = main.commands[name]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.opts[0] in result.stdout


def test_version() -> None:
    assert call("--version").stdout == f"factory, version {VERSION}\n"


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
        (["evaluate", ".", "x.csv", *("--text", "a") * 3], "--text once, or twice for pairs"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], message: str) -> None:
    assert message in error_of(call(*arguments), 2)


# recipes


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
    message = error_of(call(command, recipe), 2)
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
    message = error_of(call(command, line.recipe, "--set", override, *arguments), 2)
    for part in parts:
        assert part in message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", ["validate", "plan", "run"])
def test_missing_data_names_file_and_key(line: Line, tmp_path: Path, command: str) -> None:
    arguments = [] if command == "validate" else ["--store", tmp_path / "runs"]
    result = call(command, line.recipe, "--set", "data.dev=dve.tsv", *arguments)
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
    message = error_of(call("run", recipe, "--store", tmp_path / "runs"), 1)
    assert "error: the data cannot be used as it is:" in message
    assert "train.tsv, line 4" in message or "train.tsv: line 4" in message
    assert not [path for path in (tmp_path / "runs").glob("data-*") if path.suffix != ".partial"]


def test_a_store_that_is_a_file_is_refused(line: Line, tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    result = call("run", line.recipe, "--store", tmp_path / "runs")
    assert "runs' is a file" in error_of(result, 2)


@pytest.mark.parametrize("command", ["run", "plan"])
def test_an_unreadable_record_is_named(line: Line, tmp_path: Path, command: str) -> None:
    store = line.copy_store(tmp_path)
    (record,) = store.glob("bundle-*/artifact.json")
    record.write_text("{", encoding="utf-8")
    arguments = ["--set", "gate.min_value=0.5"] if command == "plan" else []
    result = call(command, line.recipe, "--store", store, *arguments)
    message = error_of(result, 1)
    assert str(record) in message
    assert "cannot be read as JSON" in message


def test_validate(line: Line) -> None:
    result = call("validate", line.recipe)
    assert (result.exit_code, result.stdout) == (0, f"{line.recipe}: valid\n")
    assert sorted(path.name for path in line.recipe.parent.iterdir()) == [
        "dev.tsv", "recipe.toml", "runs", "teacher", "test.tsv", "train.tsv",
    ]  # fmt: skip


def test_validate_prints_the_schema() -> None:
    result = call("validate", "--schema")
    assert result.exit_code == 0
    assert "distill" in json.loads(result.stdout)["properties"]


def test_a_missing_package_gives_the_install_line(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = call("run", line.recipe, "--store", tmp_path / "runs")
    message = error_of(result, 1)
    assert "pip install 'tinybert-factory[build]'" in message


# init


def test_init_writes_a_recipe_that_validates(line: Line, tmp_path: Path) -> None:
    folder = line.recipe.parent
    result = call(
        "init", tmp_path / "my mails.toml", "--train", folder / "train.tsv", "--dev",
        folder / "dev.tsv", "--teacher", folder / "teacher",
    )  # fmt: skip
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'my mails.toml'}\n")
    assert call("validate", tmp_path / "my mails.toml").exit_code == 0
    assert load_recipe(tmp_path / "my mails.toml").name == "my-mails"


def test_init_for_pairs(tmp_path: Path) -> None:
    call("init", tmp_path / "r.toml", "--text", "premise", "--text-pair", "claim", "--label", "y")
    data = load_recipe(tmp_path / "r.toml").data
    assert (data.text_columns, data.label) == (("premise", "claim"), "y")


def test_init_never_overwrites(tmp_path: Path) -> None:
    call("init", tmp_path / "r.toml")
    before = (tmp_path / "r.toml").read_bytes()
    message = error_of(call("init", tmp_path / "r.toml", "--label", "other"), 1)
    assert "exists already; give another path or remove it" in message
    assert (tmp_path / "r.toml").read_bytes() == before


def test_init_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    message = error_of(call("init", tmp_path / "no" / "r.toml"), 1)
    assert message == f"error: {tmp_path / 'no' / 'r.toml'}: No such file or directory\n"


# evaluate


def test_evaluate_a_bundle_and_a_folder(line: Line) -> None:
    dev = line.recipe.with_name("dev.tsv")
    (model,) = line.store.glob("distill-*/model")
    bundle = call("evaluate", line.bundle, dev)
    assert bundle.exit_code == 0
    assert bundle.stdout.startswith("dev: 90 rows\naccuracy")
    manifest = json.loads((line.bundle / MANIFEST_NAME).read_text(encoding="utf-8"))
    for place, name in ((line.bundle, "int8-static"), (model, "student")):
        facts = json.loads(call("evaluate", place, dev, "--max-length", 24, "--json").stdout)
        assert facts["rows"] == 90
        recorded = manifest["scores"][name]["dev"]["accuracy"]["value"]
        assert facts["scores"]["accuracy"]["value"] == pytest.approx(recorded)


def test_evaluate_names_an_unknown_label(line: Line, tmp_path: Path) -> None:
    file = tmp_path / "new.csv"
    file.write_text("text,label\nmy lamp,calm\nthe lamp,furious\n", encoding="utf-8")
    message = error_of(call("evaluate", line.bundle, file), 1)
    assert str(file) in message
    assert "furious" in message
    assert "line 3" in message


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["missing.csv"], "missing.csv"),
        (["new.csv", "--label", "lable"], "lable"),
        (["new.csv", "--text", "body"], "body"),
        (["new.csv", "--text", "text", "--text", "label"], "tiny-line takes single texts"),
        (["new.json"], "line 1: invalid JSON"),
    ],
)
def test_evaluate_on_data_that_does_not_fit(
    line: Line, tmp_path: Path, arguments: list[str], part: str
) -> None:
    for name in ("new.csv", "new.json"):
        (tmp_path / name).write_text("text,label\nmy lamp,calm\n", encoding="utf-8")
    result = call("evaluate", line.bundle, tmp_path / arguments[0], *arguments[1:])
    assert part in error_of(result, 1)


def test_evaluate_something_else(tmp_path: Path) -> None:
    message = error_of(call("evaluate", tmp_path, tmp_path / "x.csv"), 1)
    assert "neither a bundle (manifest.json) nor a model folder (config.json)" in message


def test_evaluate_a_folder_with_less_than_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    (tmp_path / "x.csv").write_text("text,label\na,b\n", encoding="utf-8")
    message = error_of(call("evaluate", tmp_path, tmp_path / "x.csv"), 1)
    assert str(tmp_path) in message


# inspect, verify, serve


@pytest.mark.parametrize("command", ["inspect", "verify"])
@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "No such file or directory"),
        ("{}", "not a valid manifest"),
        ('{"format": "other", "format_version": 1}', "format is 'other'"),
    ],
)
def test_a_folder_that_is_no_bundle(
    tmp_path: Path, command: str, content: str | None, part: str
) -> None:
    if content is not None:
        (tmp_path / MANIFEST_NAME).write_text(content, encoding="utf-8")
    message = error_of(call(command, tmp_path), 1)
    assert str(tmp_path / MANIFEST_NAME) in message
    assert part in message


def start_server(*arguments: object, **variables: str) -> subprocess.Popen[str]:
    """`factory serve` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "factory", "serve", *map(str, arguments)],
        cwd=ROOT,
        env=clean_environment() | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_serve_answers_and_stops(line: Line) -> None:
    process = start_server(line.bundle, "--port", 0)
    try:
        assert process.stderr is not None
        told = json.loads(process.stderr.readline())["message"]
        assert told.startswith("serving tiny-line "), told
        url = told.split()[-1]
        deadline = time.monotonic() + 30
        while httpx.get(f"{url}/ready", timeout=10).status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        answer = httpx.post(f"{url}/predict", json={"text": "thanks, great, love it"}).json()
        assert answer["predictions"][0]["label"] == "glad"
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=30)
        assert (process.returncode, stdout) == (0, "")
        assert {json.loads(line)["level"] for line in stderr.splitlines()} == {"info"}
    finally:
        process.kill()
        process.communicate()


def test_serve_with_a_bad_setting_exits_with_2(line: Line) -> None:
    process = start_server(line.bundle, SERVING_THREADS="none")
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (2, "")
    assert stderr.startswith("error: SERVING_THREADS")


def test_serve_refuses_a_damaged_bundle(line: Line, tmp_path: Path) -> None:
    store = line.copy_store(tmp_path)
    (bundle,) = store.glob("bundle-*")
    (bundle / "config.json").write_text("{}", encoding="utf-8")
    message = error_of(call("serve", bundle, "--port", 0), 1)
    assert "config.json" in message


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = [sys.executable, "-m", "factory", "validate", "--schema"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
