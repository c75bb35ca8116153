"""The command `factory compare`."""

from __future__ import annotations

import json
from pathlib import Path

import click

directory = click.Path(path_type=Path, exists=True, file_okay=False)


@click.command()
@click.argument("old", type=directory)
@click.argument("new", type=directory)
@click.option("--data", type=click.Path(path_type=Path), help="Labelled rows for both to answer.")
@click.option(
    "--text", "text_columns", multiple=True, help="Text column of --data; twice for pairs."
)
@click.option("--label", help="Label column of --data.")
@click.option("--label-separator", help="Between the labels of a cell of --data.")
@click.option(
    "--split",
    type=click.Choice(["dev", "test"]),
    help="Of the data that both runs were judged on; unset: that of NEW's gate.",
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
    """Let the bundles OLD and NEW answer the same rows; prints what changed as Markdown.

    Either may be a store, whose newest bundle then counts. Without --data the rows are those both
    runs were judged on, found in the stores around the bundles.
    """
    from factory.comparison.compare import compare as compare_bundles
    from factory.comparison.rows import DataFile
    from factory.comparison.tables import comparison_text
    from factory.runtime.environment import prepare_libraries

    if data is None and (text_columns or label or label_separator):
        raise click.UsageError("--text, --label and --label-separator belong to --data")
    if data is not None and split is not None:
        raise click.UsageError("give --data or --split, not both")
    prepare_libraries()
    file = None if data is None else DataFile(data, text_columns, label, label_separator)
    comparison = compare_bundles(old, new, file, split)
    if as_json:
        click.echo(json.dumps(comparison.facts(), indent=2, ensure_ascii=False))
    else:
        click.echo(comparison_text(comparison))
