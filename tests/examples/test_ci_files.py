"""CI files and issue forms, ours and in examples/ci: valid by the services' own schemas."""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from helpers.pipeline_run import ROOT, factory_here
from ruamel.yaml import YAML

from factory.cli.main import main

FOLDER = ROOT / "examples" / "ci"
GITHUB, GITLAB = FOLDER / "github-workflow.yml", FOLDER / "gitlab-ci.yml"
OURS = ROOT / ".github" / "workflows" / "ci.yml"
BUG = ROOT / ".github" / "ISSUE_TEMPLATE" / "bug_report.yml"
FEATURE = ROOT / ".github" / "ISSUE_TEMPLATE" / "feature_request.yml"
SCHEMAS = {
    OURS: ["--builtin-schema", "vendor.github-workflows"],
    BUG: ["--builtin-schema", "vendor.github-issue-forms"],
    FEATURE: ["--builtin-schema", "vendor.github-issue-forms"],
    GITHUB: ["--builtin-schema", "vendor.github-workflows"],
    GITLAB: ["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"],
}
SETTINGS = "--set gate.predecessor=/old --set gate.not_worse_than_predecessor=0.05"


def check_schema(file: Path, arguments: list[str]) -> int:
    from check_jsonschema import main as check

    return CliRunner().invoke(check, [*arguments, str(file)]).exit_code


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        (OURS, "timeout-minutes: 20", "timeout-minute: 20"),
        (BUG, "type: textarea", "type: textbox"),
        (FEATURE, "description: Some", "descriptions: Some"),
        (GITHUB, "runs-on:", "run-on:"),
        (GITHUB, "workflow_dispatch:", "workflow_despatch:"),
        (GITLAB, "when: always\n    # A", "when: ever\n    # A"),
        (GITLAB, "needs: [plan]", "needs: 3"),
    ],
)
def test_the_files_are_valid_and_an_error_is_not(
    file: Path, old: str, new: str, tmp_path: Path
) -> None:
    assert check_schema(file, SCHEMAS[file]) == 0
    text = file.read_text(encoding="utf-8")
    assert old in text
    broken = tmp_path / file.name
    broken.write_text(text.replace(old, new), encoding="utf-8")
    assert check_schema(broken, SCHEMAS[file]) == 1


def load(file: Path) -> Any:
    return YAML(typ="safe").load(file)


def scripts(node: Any) -> Iterator[str]:
    """Every shell script in a CI file."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if key in ("run", "script", "before_script", "after_script"):
            yield from [value] if isinstance(value, str) else value
        elif isinstance(value, dict | list):
            yield from scripts(value)


def plain(script: str) -> str:
    """A GitHub script with its expressions put in."""
    script = script.replace("${{ steps.predecessor.outputs.settings }}", SETTINGS)
    return re.sub(r"\$\{\{.*?\}\}", "made/bundle-1", script)


SCRIPTS = [plain(script) for file in (GITHUB, GITLAB) for script in scripts(load(file))]
COMMANDS = [
    found.group()
    for script in SCRIPTS
    for found in re.finditer(r"factory (?:[a-z]+)(?: [^|;&<>()\n]+)?", script)
    if not script.startswith("pip ")
]


def test_the_scripts_are_shell() -> None:
    assert len(SCRIPTS) > 10
    for script in SCRIPTS:
        subprocess.run(["bash", "-n", "-c", script], check=True)


@pytest.mark.parametrize("line", COMMANDS)
def test_their_commands_exist_with_these_options(line: str) -> None:
    words = shlex.split(line.replace("$settings", SETTINGS))
    command = main.commands[words[1]]
    arguments = [word for word in words[2:] if word != "2"]
    # click caches a command's help option: build it with the names that the group sets
    with click.Context(command, **main.context_settings) as context:
        command.make_parser(context).parse_args(arguments)


def test_both_plan_run_and_attach_the_report_on_a_schedule() -> None:
    for file in (GITHUB, GITLAB):
        text = "\n".join(scripts(load(file)))
        assert "factory plan" in text
        assert re.search(r"factory run .*--junit", text.replace("\\\n", " "))
    assert load(GITHUB)["on"]["schedule"]
    assert "schedule" in str(load(GITLAB)["workflow"]["rules"])
    steps = [step for job in load(GITHUB)["jobs"].values() for step in job["steps"]]
    uploads = [step for step in steps if "upload-artifact" in step.get("uses", "")]
    assert any("reports" in step["with"]["path"] for step in uploads)
    assert load(GITLAB)["train"]["artifacts"]["reports"]["junit"]


def cache_tool(*arguments: object, plan: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, FOLDER / "store_cache.py", *map(str, arguments)],
        input=json.dumps(plan), capture_output=True, text=True, check=False,
    )  # fmt: skip


def keys(*overrides: str) -> dict[str, str]:
    """The cache keys of the quickstart's recipe with some settings."""
    settings = [word for override in overrides for word in ("--set", override)]
    recipe = ROOT / "recipes" / "quickstart.toml"
    planned = factory_here("plan", recipe, "--json", "--set", "teacher.model=org/bert", *settings)
    result = cache_tool("keys", plan=json.loads(planned.stdout))
    assert result.returncode == 0, result.stderr
    return dict(line.split("=") for line in result.stdout.splitlines())


def test_cache_keys_tell_which_part_of_a_store_is_reusable() -> None:
    old = keys()
    assert old["exact"].startswith(f"{old['student']}-")
    assert old["student"].startswith(f"{old['teacher']}-")
    gate = keys("gate.min_retention=0.5")
    assert {name for name in old if gate[name] != old[name]} == {"exact"}
    student = keys("distill.seed=1")
    assert {name for name in old if student[name] != old[name]} == {"exact", "student"}
    assert not set(old.values()) & set(keys("teacher.epochs=1.0").values())


def test_pruning_keeps_what_the_plan_uses(tmp_path: Path) -> None:
    for name in ("data-aa", "teacher-old", "teacher-bb.partial", "teacher-bb", "tensorboard"):
        (tmp_path / name).mkdir()
    plan = [{"stage": "data", "directory": "data-aa"}, {"stage": "t", "directory": "teacher-bb"}]
    result = cache_tool("prune", tmp_path, plan=plan)
    assert result.returncode == 0, result.stderr
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"data-aa", "teacher-bb", "teacher-bb.partial", "tensorboard"}


def test_the_gitlab_job_runs(tmp_path: Path) -> None:
    """The script of the job `train` in a shell, with a stand-in for the factory."""
    log = stand_in(tmp_path)
    (script,) = load(GITLAB)["train"]["script"]
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "CI_COMMIT_BRANCH": "main",
        "CI_DEFAULT_BRANCH": "main",
    }

    def job() -> list[str]:
        log.write_text("", encoding="utf-8")
        subprocess.run(["bash", "-ec", script], cwd=tmp_path, env=environment, check=True)
        return log.read_text("utf-8").splitlines()

    first = job()
    assert [line.split()[0] for line in first] == ["plan", "run", "verify"]
    assert "predecessor" not in first[1]
    assert (tmp_path / "bundle" / "manifest.json").is_file()
    (tmp_path / "bundle" / "manifest.json").unlink()
    (tmp_path / "bundle").rmdir()
    second = job()
    assert [line.split()[0] for line in second] == ["plan", "run", "verify", "compare"]
    assert f"--set gate.predecessor={tmp_path}/predecessor" in second[1]


def stand_in(folder: Path) -> Path:
    """A program `factory` that logs how it is called and prints a bundle; the log."""
    log, bundle = folder / "log", folder / "runs" / "bundle-1"
    bundle.mkdir(parents=True)
    (bundle / "manifest.json").write_text("{}", encoding="utf-8")
    program = folder / "bin" / "factory"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {log}\ncase "$1" in run) echo {bundle};; *) echo "[]";; esac\n',
        encoding="utf-8",
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return log


def test_our_workflow_runs_targets_of_the_makefile_on_every_supported_python() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    jobs = load(OURS)["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert commands == ["make check", "make test"]
    assert {command.removeprefix("make ") for command in commands} <= set(targets)
    for job in jobs.values():
        assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]


def test_the_hooks_are_the_tools_of_the_makefile() -> None:
    (local,) = load(ROOT / ".pre-commit-config.yaml")["repos"]
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for hook in local["hooks"]:
        tool = hook["entry"].removeprefix(".venv/bin/").split()[0]
        assert f"$(BIN)/{tool}" in makefile
