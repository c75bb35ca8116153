"""The commands of the first minutes: init, doctor, completion."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from factory.cli.options import json_option
from factory.errors import EXIT_ERROR

if TYPE_CHECKING:
    from factory.data.dataset import Task

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
@click.option("--dev", type=click.Path(path_type=Path), help="Unset: part of train is held out.")
@click.option("--test", type=click.Path(path_type=Path), help="File that is only reported.")
@click.option("--text", default=None, help="Text column; unset: found out.")
@click.option("--text-pair", default=None, help="Second text column, for pairs.")
@click.option("--label", default=None, help="Label column; unset: found out.")
@click.option(
    "--task",
    type=click.Choice(["classification", "regression", "multilabel"]),
    default=None,
    help="One label per text, a number, or any number of labels; unset: found out.",
)
@click.option("--teacher", default=None, help="Hub id, folder or package:NAME.")
@click.option("--offline", is_flag=True, help="Take the packaged teacher, ask no hub.")
@json_option
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
    """Look at a data file and write a commented recipe that runs to PATH.

    What was found and decided goes to stderr. Without a file a recipe to fill in is written.
    """
    from factory.runtime.progress import say
    from factory.scaffold.defaults import HUB_TEACHER, OFFLINE_TEACHER
    from factory.scaffold.start import start_recipe
    from factory.scaffold.template import write_template

    if text_pair is not None and text is None:
        raise click.UsageError("--text-pair needs --text")
    columns = [name for name in (text, text_pair) if name is not None]
    if train is None:
        write_template(
            path,
            train="data/train.csv",
            dev=None if dev is None else str(dev),
            test=None if test is None else str(test),
            text_columns=columns or ["text"],
            label=label or "label",
            task=task or "classification",
            teacher=teacher or (OFFLINE_TEACHER if offline else HUB_TEACHER),
        )
        say("no data file given: put data/train.csv beside it, or start again with --from-csv FILE")
        click.echo(json.dumps({"recipe": str(path)}) if as_json else path)
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
    click.echo(json.dumps(start.facts(), indent=2, ensure_ascii=False) if as_json else path)


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Print what this machine can do, what is missing, and what to do about each problem."""
    from factory.runtime.doctor import examine

    examination = examine()
    if as_json:
        click.echo(json.dumps(examination.facts(), indent=2))
    else:
        for line in examination.lines():
            click.echo(line)
    if examination.errors:
        raise SystemExit(EXIT_ERROR)


@click.command()
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.pass_context
def completion(context: click.Context, shell: str | None) -> None:
    """Print the script that completes commands and options in SHELL (unset: the one in use).

    bash: eval "$(factory completion bash)" in ~/.bashrc; zsh the same in ~/.zshrc; fish:
    factory completion fish > ~/.config/fish/completions/factory.fish
    """
    from click.shell_completion import get_completion_class

    name = shell or Path(os.environ.get("SHELL", "")).name
    kind = get_completion_class(name) if name in SHELLS else None
    if kind is None:
        raise click.UsageError(f"name a shell: {', '.join(SHELLS)}")
    # click's own bash class runs bash to learn its version; the script is the same for all
    template = kind(context.find_root().command, {}, "factory", "_FACTORY_COMPLETE")
    click.echo(kind.source_template % template.source_vars())


COMMANDS: tuple[click.Command, ...] = (init, doctor, completion)
