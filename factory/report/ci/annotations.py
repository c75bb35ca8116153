"""Errors at the lines of a recipe that caused them, in the format GitHub's jobs read.

https://docs.github.com/actions/reference/workflow-commands-for-github-actions: a line
`::error file=F,line=N,title=T::MESSAGE` on stdout or stderr; stdout is data here, so these go to
stderr.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from factory.errors import GateFailedError, ProblemsError
from factory.report.ci.recipe_lines import line_of_problem

# GitHub shows ten errors of a step; the last of ours says how many there are.
SHOWN = 10


def on_github() -> bool:
    """Whether a GitHub job runs this."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def annotate(error: Exception, recipe_file: Path) -> None:
    """Mark each problem at its line of the recipe, when a GitHub job runs this."""
    if not on_github():
        return
    for line in annotation_lines(error, recipe_file):
        click.echo(line, err=True)


def annotation_lines(error: Exception, recipe_file: Path) -> list[str]:
    """One workflow command per problem, at most ten."""
    title, problems = _problems(error)
    if len(problems) > SHOWN:
        left = len(problems) - SHOWN + 1
        problems = [*problems[: SHOWN - 1], (f"and {left} more, see the log", "")]
    return [
        _command(message, title, recipe_file, line_of_problem(recipe_file, key, message))
        for message, key in problems
    ]


def _problems(error: Exception) -> tuple[str, list[tuple[str, str]]]:
    """A title, and each problem with the recipe key it is about, empty where none is named."""
    if isinstance(error, GateFailedError) and error.verdicts:
        failed = [
            (f"{judged}: {rule['text']}", f"gate.{rule['rule']}")
            for judged, rules in error.verdicts.items()
            for rule in rules
            if not rule["passed"]
        ]
        return error.headline, failed
    if isinstance(error, ProblemsError):
        return error.headline, [(problem, error.headline) for problem in error.problems]
    return type(error).__name__, [(str(error), "")]


def _command(message: str, title: str, file: Path, line: int | None) -> str:
    properties = {"file": _from_workspace(file), "line": line, "title": title}
    shown = ",".join(
        f"{name}={_escape(str(value), property_value=True)}"
        for name, value in properties.items()
        if value is not None
    )
    return f"::error {shown}::{_escape(message)}"


def _from_workspace(file: Path) -> str:
    """The path as GitHub knows it: from the root of the checkout."""
    workspace = os.environ.get("GITHUB_WORKSPACE")
    full = file.resolve()
    if workspace and full.is_relative_to(Path(workspace).resolve()):
        return full.relative_to(Path(workspace).resolve()).as_posix()
    return file.as_posix()


def _escape(text: str, *, property_value: bool = False) -> str:
    """As GitHub's runner unescapes (actions/toolkit, command.ts); the per cent sign first."""
    pairs = [("%", "%25"), ("\r", "%0D"), ("\n", "%0A")]
    pairs += [(":", "%3A"), (",", "%2C")] if property_value else []
    for character, code in pairs:
        text = text.replace(character, code)
    return text
