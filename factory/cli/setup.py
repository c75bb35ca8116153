"""Commands that prepare work: init, validate, doctor, completion."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import click

from factory.cli.options import (
    json_option,
    print_json,
    quiet_option,
    set_option,
    text_pair_option,
)
from factory.errors import EXIT_ERROR
from serving.bundle import Task

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("path", type=click.Path(path_type=Path), default=Path("recipe.toml"))
@click.option(
    "--from-csv",
    "--from",
    "--train",
    "train",
    type=click.Path(path_type=Path),
    help="Labelled file: delimited text, JSON Lines or Parquet (gzip, too), in any encoding.",
)
@click.option("--dev", type=click.Path(path_type=Path), help="Default: rows held out from train.")
@click.option("--test", type=click.Path(path_type=Path), help="Test file; not used for selection.")
@click.option("--text", help="Text column; default: detected.")
@text_pair_option
@click.option("--label", help="Label column; default: detected.")
@click.option(
    "--task",
    type=click.Choice(get_args(Task)),
    help="One label per text, a number, or any number of labels; default: detected.",
)
@click.option("--teacher", help="Hub id, folder or package:NAME.")
@click.option("--offline", is_flag=True, help="Use the packaged teacher, do not contact the hub.")
@json_option
@quiet_option
def init(
    path: Path,
    train: Path | None,
    dev: Path | None,
    test: Path | None,
    text: str | None,
    text_pair: str | None,
    label: str | None,
    task: Task | None,
    teacher: str | None,
    offline: bool,
    as_json: bool,
) -> None:
    """Inspect a data file and write a commented recipe for it to PATH.

    Findings and decisions are printed on stderr. Without a data file, writes a recipe to fill in.
    """
    from factory.recipe.data import DataSettings
    from factory.runtime.progress import say
    from factory.scaffold.defaults import HUB_TEACHER, OFFLINE_TEACHER, Choices
    from factory.scaffold.start import start_recipe
    from factory.scaffold.template import write_template

    if text_pair is not None and text is None:
        raise click.UsageError("--text-pair needs --text")
    columns = [name for name in (text, text_pair) if name is not None]
    if train is None:
        data = DataSettings(
            train="data/train.csv",
            dev=None if dev is None else str(dev),
            dev_fraction=Choices().dev_fraction if dev is None else None,
            test=None if test is None else str(test),
            text=columns if len(columns) == 2 else text or "text",
            label=label or "label",
            task=task or "classification",
        )
        model = teacher or (OFFLINE_TEACHER if offline else HUB_TEACHER)
        write_template(path, data, model, Choices())
        say("no data file given: add data/train.csv beside it, or run again with --from-csv FILE")
        print_json({"recipe": str(path)}) if as_json else click.echo(path)
        return
    start = start_recipe(
        path,
        train,
        dev=dev,
        test=test,
        text=columns,
        label=label,
        task=task,
        teacher=teacher,
        offline=offline,
    )
    for line in start.found:
        say(f"found    {line}")
    for line in start.decided:
        say(f"decided  {line}")
    say(f"next     factory run {path}")
    print_json(start.facts()) if as_json else click.echo(path)


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path), required=False)
@set_option
@click.option("--schema", is_flag=True, help="Print the recipe's JSON Schema instead.")
def validate(recipe: Path | None, overrides: tuple[str, ...], schema: bool) -> None:
    """Check RECIPE, its files and its models without running anything."""
    from factory.planning import make_plan
    from factory.recipe.file import load_recipe, recipe_schema

    if schema:
        print_json(recipe_schema())
        return
    if recipe is None:
        raise click.UsageError("give a recipe, or --schema")
    make_plan(load_recipe(recipe, overrides), recipe.parent)
    click.echo(f"{recipe}: valid")


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Print what this machine can do, what is missing, and what to do about each problem."""
    from factory.runtime.doctor import examine

    examination = examine()
    if as_json:
        print_json(asdict(examination))
    else:
        for line in examination.lines():
            click.echo(line)
    if examination.errors:
        raise SystemExit(EXIT_ERROR)


@click.command()
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.pass_context
def completion(context: click.Context, shell: str | None) -> None:
    """Print the completion script for SHELL (default: the current one).

    bash: eval "$(factory completion bash)" in ~/.bashrc; zsh the same in ~/.zshrc; fish:
    factory completion fish > ~/.config/fish/completions/factory.fish
    """
    from click.shell_completion import get_completion_class

    name = shell or Path(os.environ.get("SHELL", "")).name
    kind = get_completion_class(name) if name in SHELLS else None
    if kind is None:
        raise click.UsageError(f"name a shell: {', '.join(SHELLS)}")
    # click's own bash class runs bash to find its version; the script does not depend on it
    template = kind(context.find_root().command, {}, "factory", "_FACTORY_COMPLETE")
    click.echo(kind.source_template % template.source_vars())


COMMANDS: tuple[click.Command, ...] = (init, validate, doctor, completion)
