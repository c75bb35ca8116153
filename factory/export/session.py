"""Running an ONNX file on token ids, for checks that come before there is a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.models.encoding import EncodedRows, PaddedRows, pad_rows, sorted_batches


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
    feed = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "token_type_ids": batch.token_type_ids,
    }
    logits: NDArray[np.float32] = session.run(["logits"], feed)[0]
    return logits


def session_logits(session: Any, rows: EncodedRows, batch_size: int = 1) -> NDArray[np.float32]:
    """Logits of every row in order: (rows, labels)."""
    results: dict[int, NDArray[np.float32]] = {}
    for positions in sorted_batches(rows.lengths, batch_size):
        logits = run_session(session, pad_rows(rows, positions))
        results.update(zip(positions.tolist(), logits, strict=True))
    return np.stack([results[position] for position in range(len(rows))])
