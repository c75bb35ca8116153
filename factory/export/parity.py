"""Run an ONNX file on token ids, and check that its outputs equal those of the torch model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.data.dataset import Split
from factory.errors import ParityError
from factory.evaluation.thresholds import Thresholds, decide
from factory.export.onnx import INPUT_NAMES
from factory.models.classifier import TorchClassifier
from factory.models.encoding import (
    EncodedRows,
    PaddedRows,
    encode_inputs,
    sorted_batches,
)

BATCH_SIZES = (1, 2, 7)
LENGTHS = (2, 3, 16, 61, 128, 512)


def open_session(file: Path | bytes, threads: int = 0) -> Any:
    """A CPU session of a file or of its bytes; 0 threads means one per core."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        str(file) if isinstance(file, Path) else file,
        sess_options=options,
        providers=["CPUExecutionProvider"],
    )


def run_session(session: Any, batch: PaddedRows) -> NDArray[np.float32]:
    """Logits of one padded batch: (batch, labels)."""
    feed = {name: getattr(batch, name) for name in INPUT_NAMES}
    logits: NDArray[np.float32] = session.run(["logits"], feed)[0]
    return logits


def session_logits(session: Any, rows: EncodedRows, batch_size: int = 1) -> NDArray[np.float32]:
    """Logits of every row in order: (rows, labels)."""
    results: dict[int, NDArray[np.float32]] = {}
    for positions in sorted_batches(rows.lengths, batch_size):
        logits = run_session(session, rows.padded(positions))
        results.update(zip(positions.tolist(), logits, strict=True))
    return np.stack([results[position] for position in range(len(rows))])


def check_parity(file: Path, student: TorchClassifier, atol: float) -> dict[str, float]:
    """Compare logits on random ragged batches over a grid of batch sizes and lengths.

    Returns:
        The largest absolute difference per `BATCHxLENGTH`.

    Raises:
        ParityError: a shape differs, or any logit by more than `atol`.
    """
    import torch

    session, device = open_session(file), student.model.device
    longest = student.model.config.max_position_embeddings
    lengths = sorted({min(length, longest) for length in LENGTHS})
    differences: dict[str, float] = {}
    for batch_size in BATCH_SIZES:
        for length in lengths:
            batch = random_batch(batch_size, length, student.model.config)
            with torch.inference_mode():
                tensors = {name: torch.from_numpy(getattr(batch, name)) for name in INPUT_NAMES}
                output = student.model.eval()(**{n: t.to(device) for n, t in tensors.items()})
            expected = output.logits.float().cpu().numpy()
            found = run_session(session, batch)
            cell = f"{batch_size}x{length}"
            if found.shape != expected.shape:
                raise ParityError(
                    f"{file}: at batch x length {cell} the output has shape {found.shape}, "
                    f"torch gives {expected.shape}"
                )
            differences[cell] = float(np.abs(found - expected).max())
    # a NaN counts as the worst: max() alone would ignore it
    worst = max(differences, key=lambda cell: (np.isnan(differences[cell]), differences[cell]))
    if not differences[worst] <= atol:
        raise ParityError(
            f"{file}: at batch x length {worst} a logit differs from torch by "
            f"{differences[worst]:.3g}, more than export.atol = {atol:g}; the exported graph does "
            "not compute this model"
        )
    return differences


def check_agreement(
    file: Path,
    student: TorchClassifier,
    split: Split,
    thresholds: Thresholds | None = None,
    atol: float = 0.0,
) -> int:
    """Check that every prediction on a split equals torch's; returns the number of equal rows.

    Args:
        thresholds: of a multilabel student.
        atol: a multilabel decision may differ if its logit is this close to torch's, which
            `check_parity` allows: of thousands of decisions some are on their threshold. Such a
            row does not count as one that agrees.

    Raises:
        ParityError: any label differs (regression: any value by more than 1e-3).
    """
    inputs = split.inputs()
    rows = encode_inputs(student.tokenizer, inputs, student.max_length)
    found = session_logits(open_session(file), rows, batch_size=8)
    expected = student.logits(inputs)
    agreeing = len(split)
    if thresholds is not None:
        flipped = decide(found, thresholds) != decide(expected, thresholds)
        different = (flipped & ~(np.abs(found - expected) <= atol)).any(axis=1)
        agreeing -= int(flipped.any(axis=1).sum())
    elif expected.shape[1] == 1:
        different = ~(np.abs(found - expected)[:, 0] <= 1e-3)  # so that a NaN differs
    else:
        different = found.argmax(axis=1) != expected.argmax(axis=1)
    if different.any():
        first = int(different.argmax())
        raise ParityError(
            f"{file}: {int(different.sum())} of {len(split)} predictions on {split.name} differ "
            f"from torch, the first at row {first + 1}"
        )
    return agreeing


def random_batch(batch_size: int, length: int, config: Any) -> PaddedRows:
    """Random token ids with ragged masks; the first row is full."""
    random = np.random.default_rng([batch_size, length])
    shape = (batch_size, length)
    input_ids = random.integers(0, config.vocab_size, shape)
    token_types = random.integers(0, config.type_vocab_size, shape)
    row_lengths = random.integers(1, length + 1, batch_size)
    row_lengths[0] = length
    mask = (np.arange(length) < row_lengths[:, None]).astype(np.int64)
    return PaddedRows(input_ids, token_types, mask)
