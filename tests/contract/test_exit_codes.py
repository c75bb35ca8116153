"""The exit codes are what the README says, and its commands are ones the program has."""

from __future__ import annotations

import re
import shlex

import click
import pytest
from helpers.pipeline_run import ROOT

from factory import errors
from factory.cli.main import main

README = (ROOT / "README.md").read_text(encoding="utf-8")


def code_lines(text: str, language: str) -> list[str]:
    """The commands of a document's code blocks, continued lines joined, comments left out."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = [
    (document.name, line)
    for document in DOCUMENTS
    for line in code_lines(document.read_text(encoding="utf-8"), "bash")
    if line.startswith("factory ")
]


def error_classes(base: type[BaseException]) -> set[type[BaseException]]:
    """A class and all below it."""
    return {base}.union(*(error_classes(child) for child in base.__subclasses__()))


@pytest.mark.parametrize("code", [0, 1, 2, 3, 130])
def test_the_readme_documents_the_code(code: int) -> None:
    (line,) = [line for line in README.splitlines() if line.startswith(f"| {code} |")]
    assert re.search(r"[a-z]{4}", line.split("|")[2])


def test_every_error_has_one_of_the_codes() -> None:
    codes = (errors.EXIT_ERROR, errors.EXIT_USAGE, errors.EXIT_GATE, errors.EXIT_INTERRUPTED)
    assert codes == (1, 2, 3, 130)
    assert click.UsageError.exit_code == errors.EXIT_USAGE
    for kind in error_classes(errors.FactoryError):
        expected = {"RecipeError": 2, "GateFailedError": 3}.get(kind.__name__, 1)
        assert kind.exit_code == expected, kind  # type: ignore[attr-defined]


def test_the_readme_shows_commands() -> None:
    assert len([name for name, _ in COMMANDS if name == "README.md"]) >= 5


@pytest.mark.parametrize(("document", "line"), COMMANDS)
def test_a_documented_command_exists_with_its_options(document: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    assert words[1] in main.commands, f"{document}: {line}"
    command = main.commands[words[1]]
    known = {name for parameter in command.params for name in parameter.opts} | {"--help", "-h"}
    options = [word.partition("=")[0] for word in words[2:] if word.startswith("-")]
    assert set(options) <= known, f"{document}: {line}"
    required = [p for p in command.params if isinstance(p, click.Argument) and p.required]
    assert len(words) - 2 >= len(required)


def test_the_readme_lists_every_command() -> None:
    for name in main.commands:
        assert f"| `factory {name}` |" in README
