"""The command `factory publish`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--to",
    "target",
    required=True,
    metavar="FOLDER|OWNER/NAME",
    help="A folder, or a model repository of the Hugging Face Hub.",
)
@click.option("--private", is_flag=True, help="Create a private repository.")
@click.option("--update", is_flag=True, help="Replace an existing folder or repository.")
def publish(bundle: Path, target: str, private: bool, update: bool) -> None:
    """Verify BUNDLE and copy or upload it; prints the folder or the URL of the commit.

    The token for the Hub is read from HF_TOKEN or from `hf auth login`, the address of the Hub from
    HF_ENDPOINT. Either all files are published or none.
    """
    from factory.bundle.publish import publish_to_folder, publish_to_hub, repository_name
    from factory.runtime.environment import prepare_libraries

    repository = repository_name(target)
    if repository is None and private:
        raise click.UsageError("--private requires a Hub repository")
    prepare_libraries()
    if repository is None:
        click.echo(publish_to_folder(bundle, Path(target), update=update))
    else:
        click.echo(publish_to_hub(bundle, repository, private=private, update=update))
