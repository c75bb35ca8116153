"""Options, arguments and output that several commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

recipe_argument = click.argument("recipe", type=click.Path(path_type=Path))
bundle_argument = click.argument(
    "bundle", type=click.Path(path_type=Path, exists=True, file_okay=False)
)
set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY.PATH=VALUE",
    help="Override a recipe setting; may be repeated.",
)
store_option = click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="Directory of finished and unfinished stages.",
)
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Device to train on.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
text_pair_option = click.option("--text-pair", help="Second text column, for text pairs.")


def _set_quiet(context: click.Context, parameter: click.Parameter, quiet: bool) -> None:
    from factory.runtime import progress

    # the group's option is read first; that of a command can only turn quiet on
    if quiet or context.parent is None:
        progress.set_quiet(quiet)


quiet_option = click.option(
    "--quiet",
    "-q",
    is_flag=True,
    expose_value=False,
    callback=_set_quiet,
    help="Print only errors on stderr.",
)


def print_json(data: Any) -> None:
    """Print data as indented JSON."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))
