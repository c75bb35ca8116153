"""Post-training quantization of an exported file: int8 weights, embeddings included."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from factory.errors import ParityError


def quantize_int8(
    source: Path, target: Path, per_channel: bool, reduced_range: bool = False
) -> dict[str, Any]:
    """Write a dynamically quantized copy: 8-bit weights, activations scaled at run time.

    One scale per output channel keeps 98 % of the labels where one per tensor keeps 95.5 %, for a
    tenth of a megabyte. Embedding tables are quantized too: they are two thirds of a student.

    Args:
        reduced_range: weights of 7 bits, whose products cannot overflow without VNNI.

    Raises:
        ParityError: a weight matrix or embedding table was left in float.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # it recommends a pre-processing that breaks BERT graphs
    try:
        quantize_dynamic(
            model_input=source,
            model_output=target,
            weight_type=QuantType.QInt8,
            per_channel=per_channel,
            reduce_range=reduced_range,
        )
    finally:
        logger.setLevel(level)
    return check_quantized(target)


def check_quantized(file: Path) -> dict[str, Any]:
    """Count the quantized nodes and make sure that no large weight is still float.

    Raises:
        ParityError: a float weight of more than 10,000 numbers is left, or nothing is quantized.
    """
    import onnx

    graph = onnx.load(file).graph
    left = [
        f"{tensor.name} {list(tensor.dims)}"
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and _count(tensor) > 10_000
    ]
    matmuls = sum(node.op_type == "MatMulInteger" for node in graph.node)
    if left or not matmuls:
        raise ParityError(
            f"{file}: not quantized as asked: {matmuls} integer products, "
            "large float weights left: " + (", ".join(left) or "none")
        )
    return {"matmul_integer": matmuls, "size_bytes": file.stat().st_size}


def _count(tensor: Any) -> int:
    count = 1
    for dimension in tensor.dims:
        count *= dimension
    return count
