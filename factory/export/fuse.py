"""Transformer fusions of an exported file by onnxruntime's own tool, and float16 for CUDA."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from factory.errors import ParityError
from factory.export.onnx import check_interface
from factory.export.parity import check_parity
from factory.models.classifier import TorchClassifier

FUSED_DOMAIN = "com.microsoft"
# The fused operators of a BERT; one attention per layer, or per layer but the last when that is
# computed for the first token only, whose attention no fused operator describes.
COUNTED = ("EmbedLayerNormalization", "Attention", "SkipLayerNormalization", "BiasGelu")
FLOAT32_ATOL = 1e-4
# float16 keeps eleven bits: the logits of a student of 4 layers move by up to some thousandths.
FLOAT16_ATOL = 0.03


def write_fused(
    source: Path, target: Path, student: TorchClassifier, atol: float = FLOAT32_ATOL
) -> dict[str, Any]:
    """Write a copy of a plain fp32 file with its layers as onnxruntime's fused operators.

    Returns:
        Fused operators by name, and the largest difference from torch per batch and length.

    Raises:
        ParityError: layers were not fused, or the file does not compute the student.
    """
    model = _fused(source, student)
    counts = _counts(model, student)
    _save(model, target)
    return {"fused": counts, "largest_difference": _checked(target, student, atol)}


def write_float16(
    source: Path, target: Path, student: TorchClassifier, atol: float = FLOAT16_ATOL
) -> dict[str, Any]:
    """Write a fused copy of a plain fp32 file with weights and arithmetic in float16, for CUDA.

    Inputs and logits keep their types. Labels may differ where float32 all but ties: whoever
    ships this file measures its agreement with fp32.

    Returns:
        As `write_fused`.

    Raises:
        ParityError: layers were not fused, a large weight is still float32, or a logit differs by
            more than `atol` from torch in float32.
    """
    model = _fused(source, student)
    counts = _counts(model, student)
    model.convert_float_to_float16(keep_io_types=True)
    _save(model, target)
    _check_float16(target)
    return {"fused": counts, "largest_difference": _checked(target, student, atol)}


def _fused(source: Path, student: TorchClassifier) -> Any:
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    config = student.model.config
    logger = logging.getLogger("onnxruntime.transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it tells of every fusion
    try:
        return optimize_model(
            str(source),
            model_type="bert",
            num_heads=config.num_attention_heads,
            hidden_size=config.hidden_size,
            opt_level=0,  # this tool's fusions alone: onnxruntime's own ones come at load
            optimization_options=FusionOptions("bert"),
        )
    finally:
        logger.setLevel(level)


def _counts(model: Any, student: TorchClassifier) -> dict[str, int]:
    """How many of each fused operator there are.

    Raises:
        ParityError: fewer than the student's layers call for.
    """
    types = [node.op_type for node in model.model.graph.node]
    counts = {name: types.count(name) for name in COUNTED}
    layers = student.model.config.num_hidden_layers
    wanted = {
        "EmbedLayerNormalization": min(1, layers - 1),  # found from the first attention
        "Attention": layers - 1,
        "SkipLayerNormalization": 2 * layers,
        "BiasGelu": layers if student.model.config.hidden_act == "gelu" else 0,
    }
    lacking = [
        f"{counts[name]} {name}, not {count}"
        for name, count in wanted.items()
        if counts[name] < count
    ]
    if lacking:
        raise ParityError(
            "the transformer fusions did not recognize the exported graph: " + "; ".join(lacking)
        )
    return counts


def _save(model: Any, target: Path) -> None:
    """Write the graph with every operator set it uses; the tool leaves its own one out."""
    import onnx

    proto = model.model
    declared = {entry.domain for entry in proto.opset_import}
    if FUSED_DOMAIN not in declared:
        proto.opset_import.append(onnx.helper.make_opsetid(FUSED_DOMAIN, 1))
    onnx.save(proto, target)


def _checked(target: Path, student: TorchClassifier, atol: float) -> dict[str, float]:
    import onnx

    check_interface(target)
    onnx.checker.check_model(str(target))
    return check_parity(target, student, atol)


def _check_float16(file: Path) -> None:
    """Refuse a file that is float16 by name only."""
    import onnx

    left = [
        f"{tensor.name} {list(tensor.dims)}"
        for tensor in onnx.load(file).graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) >= 2
    ]
    if left:
        raise ParityError(f"{file}: weights left in float32: " + ", ".join(left))
