"""The command that writes the page of a run: parse, call, print, exit."""

from __future__ import annotations

from pathlib import Path

import click

from factory.cli.options import set_option, store_option


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True), metavar="BUNDLE_OR_RECIPE")
@set_option
@store_option
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file; else report.html in a folder beside the bundle.",
)
@click.option("--no-texts", is_flag=True, help="Leave the data's own texts out.")
def report(
    run: Path, overrides: tuple[str, ...], store: Path, output: Path | None, no_texts: bool
) -> None:
    """Write the page of a run again; prints its path.

    `factory run` writes it by itself. Of a run that a gate stopped, give the recipe.
    """
    from factory.report.write import report_bundle, report_recipe

    texts = 0 if no_texts else None
    if run.is_dir():
        if overrides:
            raise click.UsageError("--set belongs to a recipe")
        click.echo(report_bundle(run, texts, output))
        return
    from factory.planning import make_plan
    from factory.recipe.file import load_recipe
    from factory.store import Store

    parsed = load_recipe(run, overrides)
    click.echo(report_recipe(make_plan(parsed, run.parent), Store(store), texts, output))
