"""Commands that run stages of a recipe: plan, run, general, augment, report."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from factory.cli.options import (
    device_option,
    json_option,
    print_json,
    quiet_option,
    recipe_argument,
    set_option,
    store_option,
)
from factory.runtime import distributed

if TYPE_CHECKING:
    from factory.recipe.recipe import Recipe
    from factory.runtime.tracking import Tracker


@click.command()
@recipe_argument
@set_option
@store_option
@json_option
def plan(recipe: Path, overrides: tuple[str, ...], store: Path, as_json: bool) -> None:
    """Print which stages of RECIPE `run` would run, and why."""
    from factory.planning import make_plan, stage_statuses
    from factory.recipe.file import load_recipe
    from factory.store import Store

    parsed = load_recipe(recipe, overrides)
    statuses = stage_statuses(make_plan(parsed, recipe.parent), Store(store))
    if as_json:
        print_json(
            [
                {
                    "stage": one.key.stage,
                    "fingerprint": one.key.fingerprint,
                    "directory": one.key.directory_name,
                    "status": one.status,
                    "reason": one.reason,
                }
                for one in statuses
            ]
        )
        return
    for one in statuses:
        click.echo(f"{one.key.directory_name:24} {one.status:7} {one.reason}")


@click.command()
@recipe_argument
@set_option
@store_option
@device_option
@click.option(
    "--track",
    "requested",
    type=click.Choice(["mlflow", "wandb"]),
    multiple=True,
    help="Also send losses to this tracker; may be repeated.",
)
@click.option("--junit", type=click.Path(path_type=Path), help="Write gate results as JUnit XML.")
@click.option(
    "--summary",
    "summary_file",
    type=click.Path(path_type=Path),
    help="Write a Markdown summary; GitHub jobs show it without this option.",
)
@quiet_option
def run(
    recipe: Path,
    overrides: tuple[str, ...],
    store: Path,
    device: str,
    requested: tuple[Tracker, ...],
    junit: Path | None,
    summary_file: Path | None,
) -> None:
    """Make the bundle of RECIPE; prints its directory on stdout."""
    from factory.bundle.tables import result_table
    from factory.pipeline import run as run_pipeline
    from factory.report.ci import reporting
    from factory.runtime.progress import say
    from factory.runtime.tracking import trackers
    from factory.store import Store
    from serving.bundle import read_manifest

    with reporting(recipe, junit, summary_file) as outcome:
        outcome.recipe = parsed = _prepare(recipe, overrides)
        with distributed.process_group(device), trackers(requested):
            bundle = run_pipeline(parsed, recipe.parent, Store(store), device)
        outcome.publish(bundle)
    if distributed.from_environment().is_main:
        say(result_table(read_manifest(bundle)))
        click.echo(bundle)


@click.command()
@recipe_argument
@set_option
@store_option
@device_option
@quiet_option
def general(recipe: Path, overrides: tuple[str, ...], store: Path, device: str) -> None:
    """Distil the base teacher of RECIPE over raw text; prints the student's directory.

    Uses only the section [general] and the student's shape, no labelled data. The directory can
    be the student.start of any recipe.
    """
    directory = _run_until("general", recipe, overrides, store, device)
    if distributed.from_environment().is_main:
        click.echo(directory / "model")


@click.command()
@recipe_argument
@set_option
@store_option
@device_option
@click.option(
    "--preview",
    type=click.IntRange(min=1),
    metavar="ROWS",
    help="Print this many rows before and after augmentation instead.",
)
@quiet_option
def augment(
    recipe: Path, overrides: tuple[str, ...], store: Path, device: str, preview: int | None
) -> None:
    """Augment the training rows of RECIPE; prints the directory of Parquet files."""
    from factory.pipeline import preview_augmentation
    from factory.store import Store

    if preview is None:
        directory = _run_until("augment", recipe, overrides, store, device)
        if distributed.from_environment().is_main:
            click.echo(directory)
        return
    parsed = _prepare(recipe, overrides)
    colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    for line in preview_augmentation(
        parsed, recipe.parent, Store(store), preview, device, colours=colours
    ):
        click.echo(line)


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True), metavar="BUNDLE_OR_RECIPE")
@set_option
@store_option
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write; default: report.html in a folder beside the bundle.",
)
@click.option("--no-texts", is_flag=True, help="Leave out texts of the data.")
def report(
    run: Path, overrides: tuple[str, ...], store: Path, output: Path | None, no_texts: bool
) -> None:
    """Write the report of a finished run again; prints its path.

    `factory run` writes it too. If a gate failed, give the recipe.
    """
    from factory.report.page import report_bundle, report_recipe

    texts = 0 if no_texts else None
    if run.is_dir():
        if overrides:
            raise click.UsageError("--set needs a recipe")
        click.echo(report_bundle(run, texts, output))
        return
    from factory.planning import make_plan
    from factory.recipe.file import load_recipe
    from factory.store import Store

    parsed = load_recipe(run, overrides)
    click.echo(report_recipe(make_plan(parsed, run.parent), Store(store), texts, output))


def _prepare(recipe: Path, overrides: tuple[str, ...]) -> Recipe:
    """Load a recipe, and prepare this process for training."""
    from factory.recipe.file import load_recipe
    from factory.runtime.environment import keep_freed_memory, prepare_libraries

    parsed = load_recipe(recipe, overrides)
    prepare_libraries()
    keep_freed_memory()
    return parsed


def _run_until(
    stage: str, recipe: Path, overrides: tuple[str, ...], store: Path, device: str
) -> Path:
    """Run the pipeline up to a stage; returns the directory of its artifact."""
    from factory.pipeline import run as run_pipeline
    from factory.store import Store

    parsed = _prepare(recipe, overrides)
    with distributed.process_group(device):
        return run_pipeline(parsed, recipe.parent, Store(store), device, stage)


COMMANDS: tuple[click.Command, ...] = (plan, run, general, augment, report)
