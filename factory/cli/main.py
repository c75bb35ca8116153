"""The command `factory`: its group, and the exit code and message of every failure."""

from __future__ import annotations

from typing import Any, NoReturn

import click

from factory.cli import bundle, run, setup
from factory.cli.options import quiet_option
from factory.errors import EXIT_ERROR, EXIT_INTERRUPTED, FactoryError
from factory.version import VERSION


class FactoryGroup(click.Group):
    """A group that turns known failures into one message and an exit code."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command."""
        from serving.errors import ServingError

        try:
            return super().invoke(context)
        except FactoryError as error:
            _fail(str(error), error.exit_code, error)
        except ServingError as error:
            _fail(str(error), EXIT_ERROR, error)
        except BrokenPipeError:
            raise  # the reader of a pipe closed it; click exits silently
        except OSError as error:
            file = f"{error.filename}: " if error.filename else ""
            _fail(f"{file}{error.strerror or error}", EXIT_ERROR, error)
        except ModuleNotFoundError as error:
            from factory.runtime.doctor import install_line

            _fail(install_line(error.name or ""), EXIT_ERROR, error)
        except KeyboardInterrupt as error:
            _fail("interrupted; run the same command again to resume", EXIT_INTERRUPTED, error)


def _fail(message: str, exit_code: int, cause: BaseException) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    raise SystemExit(exit_code) from cause


@click.group(cls=FactoryGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="factory")
@quiet_option
def main() -> None:
    """Distil a fine-tuned BERT into a small one, gate it, export it, serve it.

    Exit codes: 0 success, 1 error, 2 usage or recipe, 3 gate failed, 130 interrupted.
    """


for command in (*setup.COMMANDS, *run.COMMANDS, *bundle.COMMANDS):
    main.add_command(command)
