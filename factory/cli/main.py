"""The command line: parse, call, print, exit; heavy imports happen inside the commands."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from factory.cli import bundle as cli_bundle
from factory.cli import setup as cli_setup
from factory.cli.compare import compare
from factory.cli.options import (
    device_option,
    json_option,
    recipe_argument,
    set_option,
    store_option,
)
from factory.cli.publish import publish
from factory.cli.report import report
from factory.errors import EXIT_ERROR, FactoryError
from factory.runtime import distributed as processes
from factory.version import VERSION

if TYPE_CHECKING:
    from factory.recipe.recipe import Recipe
    from factory.runtime.tracking import Tracker


class FactoryGroup(click.Group):
    """The command group; turns known failures into one message and an exit code."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command."""
        with _failures_as_exit_codes():
            return super().invoke(context)


@click.group(cls=FactoryGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="factory")
@click.option("--quiet", "-q", is_flag=True, help="No talk on stderr: errors and data only.")
def main(quiet: bool) -> None:
    """Distil a fine-tuned BERT into a small one, gate it, export it, serve it.

    Exit codes: 0 done, 1 error, 2 usage or recipe, 3 gate failed.
    """
    from factory.runtime import progress

    progress.set_quiet(quiet)


@main.command()
@click.argument("recipe", type=click.Path(path_type=Path), required=False)
@set_option
@click.option("--schema", is_flag=True, help="Print the recipe's JSON Schema instead.")
def validate(recipe: Path | None, overrides: tuple[str, ...], schema: bool) -> None:
    """Check RECIPE, its files and its models without running anything."""
    from factory.planning import make_plan
    from factory.recipe.file import load_recipe, recipe_schema

    if schema:
        click.echo(json.dumps(recipe_schema(), indent=2))
        return
    if recipe is None:
        raise click.UsageError("give a recipe, or --schema")
    parsed = load_recipe(recipe, overrides)
    make_plan(parsed, recipe.parent)
    click.echo(f"{recipe}: valid")


@main.command()
@recipe_argument
@set_option
@store_option
@json_option
def plan(recipe: Path, overrides: tuple[str, ...], store: Path, as_json: bool) -> None:
    """Print what `run` would do with each stage of RECIPE, and why."""
    from factory.planning import make_plan, stage_statuses
    from factory.recipe.file import load_recipe
    from factory.store import Store

    parsed = load_recipe(recipe, overrides)
    statuses = stage_statuses(make_plan(parsed, recipe.parent), Store(store))
    if as_json:
        rows = [
            {
                "stage": planned.key.stage,
                "fingerprint": planned.key.fingerprint,
                "directory": planned.key.directory_name,
                "status": planned.status,
                "reason": planned.reason,
            }
            for planned in statuses
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    for planned in statuses:
        click.echo(f"{planned.key.directory_name:24} {planned.status:7} {planned.reason}")


@main.command()
@recipe_argument
@set_option
@store_option
@device_option
@click.option(
    "--track",
    "asked",
    type=click.Choice(["mlflow", "wandb"]),
    multiple=True,
    help="Send losses there too; without it nothing is sent anywhere.",
)
@click.option("--junit", type=click.Path(path_type=Path), help="Write the gate as JUnit XML.")
@click.option(
    "--summary",
    "summary_file",
    type=click.Path(path_type=Path),
    help="Write how it went as Markdown; a GitHub job shows it anyway.",
)
def run(
    recipe: Path,
    overrides: tuple[str, ...],
    store: Path,
    device: str,
    asked: tuple[Tracker, ...],
    junit: Path | None,
    summary_file: Path | None,
) -> None:
    """Make the bundle of RECIPE; the last line on stdout is its directory."""
    from factory.pipeline import run as run_pipeline
    from factory.report.ci.reporting import reporting
    from factory.report.tables import result_table
    from factory.runtime.progress import say
    from factory.runtime.tracking import trackers
    from factory.store import Store
    from serving.bundle import read_manifest

    with reporting(recipe, junit, summary_file) as report:
        report.recipe = parsed = _load_for_work(recipe, overrides)
        with processes.process_group(device), trackers(asked):
            bundle = run_pipeline(parsed, recipe.parent, Store(store), device)
        report.bundle = bundle
    if processes.from_environment().first:
        say(result_table(read_manifest(bundle)))
        click.echo(bundle)


@main.command()
@recipe_argument
@set_option
@store_option
@device_option
def general(recipe: Path, overrides: tuple[str, ...], store: Path, device: str) -> None:
    """Distil the base teacher of RECIPE over its raw corpus; prints the student's folder.

    Only the section [general] and the student's shape are used, no labelled data. The folder can
    be the student.start of any recipe.
    """
    folder = _run_until("general", recipe, overrides, store, device)
    if folder is not None:
        click.echo(folder / "model")


@main.command()
@recipe_argument
@set_option
@store_option
@device_option
@click.option(
    "--preview",
    type=click.IntRange(min=1),
    metavar="ROWS",
    help="Print this many rows before and after instead.",
)
def augment(
    recipe: Path, overrides: tuple[str, ...], store: Path, device: str, preview: int | None
) -> None:
    """Augment the training rows of RECIPE; prints the folder of Parquet files."""
    from factory.pipeline import preview_augmentation
    from factory.store import Store

    if preview is None:
        folder = _run_until("augment", recipe, overrides, store, device)
        if folder is not None:
            click.echo(folder)
        return
    parsed = _load_for_work(recipe, overrides)
    colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    place = Store(store)
    for line in preview_augmentation(
        parsed, recipe.parent, place, preview, device, colours=colours
    ):
        click.echo(line)


for command in (*cli_setup.COMMANDS, *cli_bundle.COMMANDS, compare, publish, report):
    main.add_command(command)


def _load_for_work(recipe: Path, overrides: tuple[str, ...]) -> Recipe:
    """The recipe, and this process made ready for models."""
    from factory.recipe.file import load_recipe
    from factory.runtime.environment import keep_freed_memory, prepare_libraries

    parsed = load_recipe(recipe, overrides)
    prepare_libraries()
    keep_freed_memory()
    return parsed


def _run_until(
    stage: str, recipe: Path, overrides: tuple[str, ...], store: Path, device: str
) -> Path | None:
    """Run the pipeline up to a stage; its directory on rank 0, None on other ranks."""
    from factory.pipeline import run as run_pipeline
    from factory.store import Store

    parsed = _load_for_work(recipe, overrides)
    with processes.process_group(device):
        folder = run_pipeline(parsed, recipe.parent, Store(store), device, stage)
    return folder if processes.from_environment().first else None


@contextlib.contextmanager
def _failures_as_exit_codes() -> Iterator[None]:
    from serving.errors import ServingError

    try:
        yield
    except FactoryError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from error
    except ServingError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(EXIT_ERROR) from error
    except BrokenPipeError:
        raise  # the reader of a pipe has enough; click ends quietly
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"error: {where}{error.strerror or error}", err=True)
        raise SystemExit(EXIT_ERROR) from error
    except ModuleNotFoundError as error:
        from factory.runtime.doctor import install_line

        click.echo(f"error: {install_line(error.name or '')}", err=True)
        raise SystemExit(EXIT_ERROR) from error
