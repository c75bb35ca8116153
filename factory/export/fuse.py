"""Transformer fusions of an exported file by onnxruntime's own tool, and float16 for CUDA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from factory.errors import ParityError
from factory.export.onnx import check_interface, quiet
from factory.export.parity import check_parity
from factory.models.classifier import TorchClassifier

FUSED_DOMAIN = "com.microsoft"
FLOAT32_ATOL = 1e-4
# float16 keeps eleven bits: the logits of a student of 4 layers move by up to some thousandths.
FLOAT16_ATOL = 0.03


def write_fused(
    source: Path, target: Path, student: TorchClassifier, *, half: bool = False
) -> dict[str, Any]:
    """Write a copy of a plain fp32 file with its layers as onnxruntime's fused operators.

    Args:
        half: weights and arithmetic in float16, for CUDA; inputs and logits keep their types.
            Labels may differ where two classes almost tie, so measure the agreement with fp32.

    Returns:
        Fused operators by name, and the largest difference from torch per batch and length.

    Raises:
        ParityError: layers were not fused, the file does not compute the student, or a matrix is
            still float32 where it should be float16.
    """
    import onnx
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    config = student.model.config
    with quiet("onnxruntime.transformers"):
        model = optimize_model(
            str(source),
            model_type="bert",
            num_heads=config.num_attention_heads,
            hidden_size=config.hidden_size,
            opt_level=0,  # only this tool's fusions: onnxruntime applies its own at load
            optimization_options=FusionOptions("bert"),
        )
    counts = _count_fused(model.model.graph, config)
    if half:
        model.convert_float_to_float16(keep_io_types=True)
    proto = model.model
    if FUSED_DOMAIN not in {entry.domain for entry in proto.opset_import}:  # the tool leaves it out
        proto.opset_import.append(onnx.helper.make_opsetid(FUSED_DOMAIN, 1))
    onnx.save(proto, target)
    if half:
        _check_float16(target)
    check_interface(target)
    onnx.checker.check_model(str(target))
    difference = check_parity(target, student, FLOAT16_ATOL if half else FLOAT32_ATOL)
    return {"fused": counts, "largest_difference": difference}


def _count_fused(graph: Any, config: Any) -> dict[str, int]:
    """The number of each fused operator.

    Raises:
        ParityError: fewer than the student's layers require.
    """
    layers = config.num_hidden_layers
    wanted = {
        "EmbedLayerNormalization": min(1, layers - 1),  # found from the first attention
        # no fused operator describes a last layer that is computed for the first token only
        "Attention": layers - 1,
        "SkipLayerNormalization": 2 * layers,
        "BiasGelu": layers if config.hidden_act == "gelu" else 0,
    }
    types = [node.op_type for node in graph.node]
    counts = {name: types.count(name) for name in wanted}
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


def _check_float16(file: Path) -> None:
    import onnx

    left = [
        f"{tensor.name} {list(tensor.dims)}"
        for tensor in onnx.load(file).graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) >= 2
    ]
    if left:
        raise ParityError(f"{file}: weights left in float32: " + ", ".join(left))
