"""Export a saved BERT classifier to one ONNX file with dynamic batch and sequence."""

from __future__ import annotations

import contextlib
import logging
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

from factory.errors import ParityError

INPUT_NAMES = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT_NAME = "logits"


def export_onnx(
    model_directory: Path, output_file: Path, opset: int, first_token: bool = True
) -> None:
    """Write the model of a folder as fp32 ONNX through optimum's exporter.

    Eager attention exports a smaller graph than the fused one, and the only one ONNX Runtime's
    transformer optimizer recognizes.

    Args:
        first_token: compute the last layer for the first token only, all the classifier reads.

    Raises:
        ParityError: the file does not have the inputs, output and axes of a bundle.
    """
    from optimum.exporters.onnx import onnx_export_from_model
    from transformers import BertForSequenceClassification

    from factory.export.first_token import shorten_last_layer

    model = BertForSequenceClassification.from_pretrained(
        model_directory, attn_implementation="eager"
    ).eval()
    if first_token:
        shorten_last_layer(model)
    scratch = output_file.parent / "export.tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    with quiet("optimum", "transformers", "torch.onnx"):  # tracing, deprecation of TorchScript
        onnx_export_from_model(
            model,
            scratch,
            task="text-classification",
            opset=opset,
            do_validation=False,  # it only warns when values differ; factory.export.parity raises
        )
    (scratch / "model.onnx").replace(output_file)
    shutil.rmtree(scratch)
    check_interface(output_file)


def check_interface(file: Path) -> None:
    """Check names, types and axes of inputs and output, and that all weights are inside.

    Raises:
        ParityError: with everything that differs.
    """
    import onnx

    graph = onnx.load(file, load_external_data=False).graph
    problems = [
        f"weight {tensor.name} is stored in another file"
        for tensor in graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    ]
    axes = {value.name: _axes(value) for value in (*graph.input, *graph.output)}
    wanted: dict[str, tuple[int, list[str] | None]] = {
        name: (onnx.TensorProto.INT64, ["batch_size", "sequence_length"]) for name in INPUT_NAMES
    }
    wanted[OUTPUT_NAME] = (onnx.TensorProto.FLOAT, None)
    if set(axes) != set(wanted):
        problems.append(f"inputs and outputs are {sorted(axes)}, not {sorted(wanted)}")
    for name, (element_type, names) in wanted.items():
        if name not in axes:
            continue
        found_type, found_names = axes[name]
        if found_type != element_type:
            problems.append(f"{name} has element type {found_type}, not {element_type}")
        if names is not None and found_names != names:
            problems.append(f"{name} has axes {found_names}, not {names}")
        if names is None and found_names[0] != "batch_size":
            problems.append(f"{name} has axes {found_names}, the first must be batch_size")
    if problems:
        raise ParityError(
            f"{file}: the graph does not have the interface of a bundle: " + "; ".join(problems)
        )


def _axes(value: object) -> tuple[int, list[str]]:
    tensor = value.type.tensor_type  # type: ignore[attr-defined]
    return tensor.elem_type, [
        dimension.dim_param or str(dimension.dim_value) for dimension in tensor.shape.dim
    ]


@contextlib.contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Keep the notes of other libraries' tools off the terminal: loggers below errors, warnings."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
