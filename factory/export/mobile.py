"""A file in onnxruntime's own format for phones, with the operators a minimal runtime needs."""

from __future__ import annotations

import contextlib
import io
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from factory.errors import ParityError, first_line
from factory.export.onnx import quiet
from factory.export.parity import open_session, random_batch, run_session

ORT_FILE = "model.ort"
OPERATORS_FILE = "required_operators_and_types.config"
CELLS = ((1, 2), (1, 16), (3, 32))  # batch size and length of the batches compared
ATOL = 1e-4


@dataclass(frozen=True, slots=True)
class MobileFacts:
    """Facts about a written `model.ort`.

    Args:
        largest_difference: of a logit from the ONNX file's, on random batches.
    """

    size_bytes: int
    largest_difference: float


def write_mobile(source: Path, directory: Path, config: Any) -> MobileFacts:
    """Write `model.ort` and the list of operators that a minimal build of onnxruntime needs.

    The file holds the graph as optimized by this version of onnxruntime. Pass
    `required_operators_and_types.config` to its build as `--include_ops_by_config`.

    Args:
        source: any ONNX file of the student.
        directory: an existing one that gets both files.
        config: the student's BERT configuration.

    Raises:
        ParityError: the file cannot be converted, or gives other logits than `source`.
    """
    try:
        _convert(source, directory)
    except Exception as error:  # onnxruntime's own errors share no base class
        raise ParityError(
            f"{source}: onnxruntime cannot convert it to its own format: {first_line(error)}"
        ) from error
    file = directory / ORT_FILE
    (directory / f"{source.stem}.ort").replace(file)
    written = directory / f"{source.stem}.{OPERATORS_FILE}"
    lines = written.read_text(encoding="utf-8").splitlines()
    written.unlink()
    needed = [line for line in lines if line and not line.startswith("#")]  # a path of this machine
    (directory / OPERATORS_FILE).write_text("\n".join(needed) + "\n", encoding="utf-8")
    difference = _difference(source, file, config)
    if not difference <= ATOL:
        raise ParityError(
            f"{file}: a logit differs by {difference:.3g} from {source.name}, more than {ATOL:g}"
        )
    return MobileFacts(file.stat().st_size, difference)


def _convert(source: Path, directory: Path) -> None:
    """Run onnxruntime's converter without its output: stdout is for data."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    from onnxruntime.tools.convert_onnx_models_to_ort import (
        OptimizationStyle,
        convert_onnx_models_to_ort,
    )

    # the import changed the root logger, so that the libraries' notes appear on the terminal
    root.handlers[:], root.level = handlers, level
    with contextlib.redirect_stdout(io.StringIO()), quiet("ort_format_model.utils"):
        convert_onnx_models_to_ort(
            source,
            output_dir=directory,
            optimization_styles=[OptimizationStyle.Fixed],
            enable_type_reduction=True,
        )


def _difference(source: Path, file: Path, config: Any) -> float:
    sessions = [open_session(path, threads=1) for path in (source, file)]
    largest = 0.0
    for batch_size, length in CELLS:
        batch = random_batch(batch_size, min(length, config.max_position_embeddings), config)
        first, second = (run_session(session, batch) for session in sessions)
        largest = float(np.maximum(largest, np.abs(first - second).max()))  # keeps a NaN
    return largest
