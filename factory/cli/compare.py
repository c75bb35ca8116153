"""The command `factory compare`."""

from __future__ import annotations

import json
from pathlib import Path

import click

directory = click.Path(path_type=Path, exists=True, file_okay=False)


@click.command()
@click.argument("old", type=directory)
@click.argument("new", type=directory)
@click.option("--data", type=click.Path(path_type=Path), help="Labelled file to compare on.")
@click.option(
    "--text", "text_columns", multiple=True, help="Text column of --data; give it twice for pairs."
)
@click.option("--label", help="Label column of --data.")
@click.option("--label-separator", help="Separator between labels in a cell.")
@click.option(
    "--split",
    type=click.Choice(["dev", "test"]),
    help="Split of the runs' data; default: the split of NEW's gate.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def compare(
    old: Path,
    new: Path,
    data: Path | None,
    text_columns: tuple[str, ...],
    label: str | None,
    label_separator: str | None,
    split: str | None,
    as_json: bool,
) -> None:
    """Compare the bundles OLD and NEW on the same rows; prints the differences as Markdown.

    Of a store, the newest bundle is compared. Without --data, the rows are those that both runs
    were evaluated on, read from the stores of the bundles.
    """
    from factory.bundle.compare import compare as compare_bundles
    from factory.bundle.compare import comparison_text
    from factory.bundle.compare_rows import DataFile
    from factory.runtime.environment import prepare_libraries

    if data is None and (text_columns or label or label_separator):
        raise click.UsageError("--text, --label and --label-separator require --data")
    if data is not None and split is not None:
        raise click.UsageError("give --data or --split, not both")
    prepare_libraries()
    file = None if data is None else DataFile(data, text_columns, label, label_separator)
    comparison = compare_bundles(old, new, file, split)
    if as_json:
        click.echo(json.dumps(comparison.to_facts(), indent=2, ensure_ascii=False))
    else:
        click.echo(comparison_text(comparison))
