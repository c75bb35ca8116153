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
INPUT_AXES = ["batch_size", "sequence_length"]


def export_onnx(
    model_directory: Path, output_file: Path, opset: int, first_token: bool = True
) -> None:
    """Write the model of a folder as fp32 ONNX through optimum's exporter.

    Eager attention is exported as a smaller graph than fused attention, and ONNX Runtime's
    transformer optimizer recognizes only this graph.

    Args:
        first_token: compute the last layer for the first token only, the only one the classifier
            reads.

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
    found = {
        value.name: (
            value.type.tensor_type.elem_type,
            [axis.dim_param or str(axis.dim_value) for axis in value.type.tensor_type.shape.dim],
        )
        for value in (*graph.input, *graph.output)
    }
    wanted = dict.fromkeys(INPUT_NAMES, (onnx.TensorProto.INT64, INPUT_AXES))
    wanted[OUTPUT_NAME] = (onnx.TensorProto.FLOAT, INPUT_AXES[:1])
    if found.keys() != wanted.keys():
        problems.append(f"inputs and outputs are {sorted(found)}, not {sorted(wanted)}")
    for name in found.keys() & wanted.keys():
        kind, axes = found[name]
        wanted_kind, wanted_axes = wanted[name]
        if kind != wanted_kind:
            problems.append(f"{name} has element type {kind}, not {wanted_kind}")
        if axes[: len(wanted_axes)] != wanted_axes or len(axes) != 2:
            problems.append(f"{name} has axes {axes}, which must begin with {wanted_axes}")
    if problems:
        raise ParityError(
            f"{file}: the graph does not have the interface of a bundle: " + "; ".join(problems)
        )


@contextlib.contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Silence the warnings of other libraries, and messages of these loggers below errors."""
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
