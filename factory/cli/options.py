"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

DEFAULT_STORE = Path("runs")

recipe_argument = click.argument("recipe", type=click.Path(path_type=Path))
set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY.PATH=VALUE",
    help="Override one recipe setting; may be repeated.",
)
store_option = click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_STORE,
    show_default=True,
    help="Directory of finished and half-finished stages.",
)
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to train.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
bundle_argument = click.argument(
    "bundle", type=click.Path(path_type=Path, exists=True, file_okay=False)
)
