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
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--update", is_flag=True, help="Replace what is there.")
def publish(bundle: Path, target: str, private: bool, update: bool) -> None:
    """Copy or upload BUNDLE, once it is verified; prints where it is.

    The token for the hub comes from HF_TOKEN or from `hf auth login`, the hub's address from
    HF_ENDPOINT. All files arrive together or none.
    """
    from factory.bundle.publish_target import repository_name
    from factory.runtime.environment import prepare_libraries

    repository = repository_name(target)
    if repository is None and private:
        raise click.UsageError("--private belongs to a repository of the hub")
    prepare_libraries()
    if repository is None:
        from factory.bundle.publish_folder import publish_to_folder

        click.echo(publish_to_folder(bundle, Path(target), update=update))
        return
    from factory.bundle.publish import publish_to_hub

    click.echo(publish_to_hub(bundle, repository, private=private, update=update))
