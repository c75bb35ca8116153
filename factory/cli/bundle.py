"""Commands on finished bundles: parse, call, print, exit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from factory.cli.options import (
    bundle_argument,
    json_option,
    print_json,
    quiet_option,
    text_pair_option,
)

if TYPE_CHECKING:
    from factory.bundle.package import PackageFormat, TritonDevice
    from factory.predict.job import OnError

directory = click.Path(path_type=Path, exists=True, file_okay=False)


@click.command()
@click.argument("model", type=directory)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--text", default="text", show_default=True, help="Text column.")
@text_pair_option
@click.option("--label", default="label", show_default=True, help="Label column.")
@click.option(
    "--label-separator",
    default=",",
    show_default=True,
    help="Separator between labels in a csv or tsv cell; for multilabel models.",
)
@click.option(
    "--max-length",
    type=click.IntRange(8, 512),
    help="Maximum number of tokens; default: the bundle's, or 128.",
)
@json_option
@quiet_option
def evaluate(
    model: Path,
    data: Path,
    text: str,
    text_pair: str | None,
    label: str,
    label_separator: str,
    max_length: int | None,
    as_json: bool,
) -> None:
    """Evaluate MODEL (a bundle, or a model folder in Hugging Face format) on a labelled file."""
    from factory.evaluation.evaluate import evaluation_lines, score_file
    from factory.runtime.environment import prepare_libraries

    prepare_libraries()
    columns = [text] if text_pair is None else [text, text_pair]
    evaluation = score_file(model, data, columns, label, max_length, label_separator)
    if as_json:
        print_json(evaluation.to_facts())
        return
    for line in evaluation_lines(evaluation):
        click.echo(line)


@click.command()
@bundle_argument
@click.option(
    "--input",
    "source",
    type=click.Path(path_type=Path),
    required=True,
    help="Delimited text, JSON Lines or Parquet (gzip, too), or - for JSON Lines on stdin.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help=".csv, .tsv or .jsonl (.gz, too), .parquet, or - for stdout; must not exist.",
)
@click.option("--text", help="Text column; default: the one used in training.")
@text_pair_option
@click.option("--all-scores", is_flag=True, help="Add a column score_LABEL for every label.")
@click.option("--prefix", default="", help="Prefix of the names of the added columns.")
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="If rows cannot be scored: list them and stop, or skip them.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Default: all cores.")
@click.option("--restart", is_flag=True, help="Discard partial output of an interrupted run.")
@quiet_option
def predict(
    bundle: Path,
    source: Path,
    output: Path,
    text: str | None,
    text_pair: str | None,
    all_scores: bool,
    prefix: str,
    on_error: OnError,
    threads: int | None,
    restart: bool,
) -> None:
    """Score every row of a file with BUNDLE; adds columns with label and score.

    Files can have any size. Run the same command again to resume interrupted work.
    """
    from factory.predict.job import PredictOptions, predict_file
    from serving.processors import allowed_processors

    options = PredictOptions(
        text=text,
        text_pair=text_pair,
        prefix=prefix,
        all_scores=all_scores,
        on_error=on_error,
        threads=threads or allowed_processors(),
        restart=restart,
    )
    predict_file(bundle, source, output, options)
    if str(output) != "-":
        click.echo(output)


@click.command()
@bundle_argument
@json_option
def inspect(bundle: Path, as_json: bool) -> None:
    """Print the name, scores and gate results of BUNDLE."""
    from factory.bundle.tables import gate_lines, label_list, result_table
    from serving.bundle import MANIFEST_NAME, read_manifest

    manifest = read_manifest(bundle)
    if as_json:
        click.echo((bundle / MANIFEST_NAME).read_text(encoding="utf-8"), nl=False)
        return
    click.echo(f"{manifest.name}  version {manifest.version}  {manifest.task}")
    click.echo(f"serves {manifest.model.file} ({manifest.model.form})")
    click.echo(f"{len(manifest.labels)} labels: {label_list(manifest)}")
    click.echo(f"\n{result_table(manifest)}\n")
    for line in gate_lines(manifest):
        click.echo(line)


@click.command()
@bundle_argument
def verify(bundle: Path) -> None:
    """Check the files of BUNDLE against its manifest, and that the model runs."""
    from serving.predictor import Predictor

    predictor = Predictor.open(bundle)
    click.echo(f"{bundle}: {len(predictor.manifest.files)} files match, the model runs")


@click.command()
@bundle_argument
@click.option(
    "--format",
    "form",
    type=click.Choice(["ort", "text", "triton"]),
    required=True,
    help="ort: onnxruntime's own format, for phones; text: one ONNX file that takes strings; "
    "triton: a model repository.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Directory to create; must not exist.",
)
@click.option(
    "--triton-device",
    "device",
    type=click.Choice(["cpu", "gpu", "auto"]),
    default="cpu",
    show_default=True,
    help="Device that Triton runs the model on.",
)
@click.option(
    "--triton-instances",
    "instances",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Model instances that run concurrently; on a CPU, one per core.",
)
def package(
    bundle: Path, form: PackageFormat, output: Path, device: TritonDevice, instances: int
) -> None:
    """Write BUNDLE in another format; prints the directory.

    Outputs are compared with those of the bundle before the directory is created.
    """
    from factory.bundle.package import TritonMachine, package_bundle
    from factory.runtime.environment import prepare_libraries

    prepare_libraries()
    package_bundle(bundle, output, form, TritonMachine(device, instances))
    click.echo(output)


@click.command()
@click.argument("old", type=directory)
@click.argument("new", type=directory)
@click.option("--data", type=click.Path(path_type=Path), help="Labelled file to compare on.")
@click.option("--text", help="Text column of --data; default: the one used in training.")
@text_pair_option
@click.option("--label", help="Label column of --data; default: the one used in training.")
@click.option("--label-separator", help="Separator between labels in a cell of --data.")
@click.option(
    "--split",
    type=click.Choice(["dev", "test"]),
    help="Split to compare on without --data; default: that of NEW's gate.",
)
@json_option
@quiet_option
def compare(
    old: Path,
    new: Path,
    data: Path | None,
    text: str | None,
    text_pair: str | None,
    label: str | None,
    label_separator: str | None,
    split: str | None,
    as_json: bool,
) -> None:
    """Compare two bundles on the same rows; prints Markdown.

    OLD and NEW can also be stores; their newest bundle is used. Without --data, the rows are those
    that both runs were evaluated on, read from the stores that contain the bundles.
    """
    from factory.bundle.compare import compare as compare_bundles
    from factory.bundle.compare import comparison_text
    from factory.bundle.compare_rows import DataFile
    from factory.runtime.environment import prepare_libraries

    if data is None and (text or text_pair or label or label_separator):
        raise click.UsageError("--text, --text-pair, --label and --label-separator need --data")
    if text_pair is not None and text is None:
        raise click.UsageError("--text-pair needs --text")
    if data is not None and split is not None:
        raise click.UsageError("give --data or --split, not both")
    prepare_libraries()
    columns = tuple(name for name in (text, text_pair) if name is not None)
    file = None if data is None else DataFile(data, columns, label, label_separator)
    comparison = compare_bundles(old, new, file, split)
    print_json(comparison.to_facts()) if as_json else click.echo(comparison_text(comparison))


@click.command()
@bundle_argument
@click.option(
    "--to",
    "target",
    required=True,
    metavar="FOLDER|OWNER/NAME",
    help="A folder, or a model repository on the Hugging Face Hub.",
)
@click.option("--private", is_flag=True, help="Create the repository as private.")
@click.option("--update", is_flag=True, help="Replace existing files.")
@quiet_option
def publish(bundle: Path, target: str, private: bool, update: bool) -> None:
    """Verify BUNDLE, then copy or upload it; prints its new location.

    The hub's token is read from HF_TOKEN or from `hf auth login`, the hub's address from
    HF_ENDPOINT. Either all files are published or none.
    """
    from factory.bundle.publish import publish_to_folder, publish_to_hub, repository_name
    from factory.runtime.environment import prepare_libraries

    repository = repository_name(target)
    if repository is None and private:
        raise click.UsageError("--private needs a repository on the hub")
    prepare_libraries()
    if repository is None:
        click.echo(publish_to_folder(bundle, Path(target), update=update))
        return
    click.echo(publish_to_hub(bundle, repository, private=private, update=update))


@click.command()
@bundle_argument
@click.option("--host", default=None, help="Overrides SERVING_HOST.")
@click.option("--port", default=None, type=int, help="Overrides SERVING_PORT.")
def serve(bundle: Path, host: str | None, port: int | None) -> None:
    """Serve BUNDLE over HTTP; the same as `python -m serving`."""
    from serving.__main__ import main as serve_main

    arguments = [str(bundle)]
    arguments += ["--host", host] if host is not None else []
    arguments += ["--port", str(port)] if port is not None else []
    raise SystemExit(serve_main(arguments))


COMMANDS: tuple[click.Command, ...] = (
    evaluate,
    predict,
    inspect,
    verify,
    compare,
    package,
    publish,
    serve,
)
