"""The command line in this process, and its failures."""

from __future__ import annotations

import click.testing

from factory.cli.main import main


def call(*arguments: object) -> click.testing.Result:
    """Run the command line in this process; an exception that escapes it fails the test."""
    result = click.testing.CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def error_of(result: click.testing.Result, code: int) -> str:
    """The message on stderr of a command that failed with the code and printed nothing."""
    assert (result.exit_code, result.stdout) == (code, ""), result.stderr
    assert "Traceback" not in result.stderr
    return str(result.stderr)
