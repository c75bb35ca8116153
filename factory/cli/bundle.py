"""The commands on finished bundles: parse, call, print, exit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from factory.cli.options import bundle_argument, json_option

if TYPE_CHECKING:
    from factory.bundle.package import PackageFormat
    from factory.bundle.triton import TritonDevice
    from factory.predict.job import OnError


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--text", "text_columns", multiple=True, default=("text",), show_default=True)
@click.option("--label", default="label", show_default=True, help="Label column.")
@click.option(
    "--label-separator",
    default=",",
    show_default=True,
    help="Between the labels of a csv or tsv cell; for multilabel models.",
)
@click.option(
    "--max-length",
    default=None,
    type=click.IntRange(8, 512),
    help="Tokens; a bundle knows its own.",
)
@json_option
def evaluate(
    model: Path,
    data: Path,
    text_columns: tuple[str, ...],
    label: str,
    label_separator: str,
    max_length: int | None,
    as_json: bool,
) -> None:
    """Score MODEL (a bundle, or a folder in Hugging Face format) on the labelled file DATA.

    Give --text twice for sentence pairs.
    """
    from factory.evaluation.scoring import evaluation_lines, score_file
    from factory.runtime.environment import prepare_libraries

    if len(text_columns) > 2:
        raise click.UsageError("give --text once, or twice for pairs")
    prepare_libraries()
    evaluation = score_file(model, data, list(text_columns), label, max_length, label_separator)
    if as_json:
        click.echo(json.dumps(evaluation.facts(), indent=2))
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
    help="Delimited text, JSON Lines or Parquet (gzip, too), or - for JSON Lines.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help=".csv, .tsv, .jsonl (.gz, too), .parquet, or -.",
)
@click.option("--text", default=None, help="Text column; the one trained on if not given.")
@click.option("--text-pair", default=None, help="Second text column, of a bundle for pairs.")
@click.option("--all-scores", is_flag=True, help="Add a column score_LABEL for every label.")
@click.option("--prefix", default="", help="Before the name of every added column.")
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="Rows that cannot be scored: do nothing and list them, or leave them out.",
)
@click.option("--threads", type=click.IntRange(min=1), default=None, help="Default: every core.")
@click.option("--restart", is_flag=True, help="Discard partial output of an interrupted run.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
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
    quiet: bool,
) -> None:
    """Score every row of a file with BUNDLE; writes the rows with label and score behind them.

    Files of any size; run the same command again to go on with work that was ended.
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
        quiet=quiet,
    )
    predict_file(bundle, source, output, options)
    if str(output) != "-":
        click.echo(output)


@click.command()
@bundle_argument
@json_option
def inspect(bundle: Path, as_json: bool) -> None:
    """Print what BUNDLE is, how good it is, and why the gate let it pass."""
    from factory.report.tables import gate_lines, label_list, result_table
    from serving.bundle import MANIFEST_NAME, read_manifest

    manifest = read_manifest(bundle)
    if as_json:
        click.echo((bundle / MANIFEST_NAME).read_text(encoding="utf-8"), nl=False)
        return
    click.echo(f"{manifest.name}  version {manifest.version}  {manifest.task}")
    click.echo(f"serves {manifest.model.file} ({manifest.model.variant})")
    click.echo(f"{len(manifest.labels)} labels: {label_list(manifest)}")
    click.echo(f"\n{result_table(manifest)}\n")
    for line in gate_lines(manifest):
        click.echo(line)


@click.command()
@bundle_argument
def verify(bundle: Path) -> None:
    """Check every file of BUNDLE against its manifest, and that the model loads and answers."""
    from serving.predictor import Predictor

    predictor = Predictor.open(bundle)
    click.echo(f"{bundle}: {len(predictor.manifest.files)} files match, the model answers")


@click.command()
@bundle_argument
@click.option(
    "--format",
    "form",
    type=click.Choice(["ort", "text", "triton"]),
    required=True,
    help="ort: onnxruntime's own format, for phones; text: one file that reads strings; "
    "triton: a model repository.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Directory to make; must not exist.",
)
@click.option(
    "--triton-device",
    "device",
    type=click.Choice(["cpu", "gpu", "auto"]),
    default="cpu",
    show_default=True,
    help="What Triton runs the model on.",
)
@click.option(
    "--triton-instances",
    "instances",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Copies that run at a time; on a processor, one per core.",
)
def package(
    bundle: Path, form: PackageFormat, output: Path, device: TritonDevice, instances: int
) -> None:
    """Write the model of BUNDLE in another form; prints the directory.

    The form's answers are compared with the bundle's before the directory appears.
    """
    from factory.bundle.package import package_bundle
    from factory.bundle.triton import TritonMachine
    from factory.runtime.environment import prepare_libraries

    prepare_libraries()
    package_bundle(bundle, output, form, TritonMachine(device, instances))
    click.echo(output)


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


COMMANDS: tuple[click.Command, ...] = (evaluate, predict, inspect, verify, package, serve)
