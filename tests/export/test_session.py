"""Running an ONNX file on token ids."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny_models import tiny_split

from factory.export.session import open_session, run_session, session_logits
from factory.models.encoding import EncodedRows, encode_inputs, pad_rows


@pytest.fixture(scope="module")
def rows(exported: Any) -> EncodedRows:
    """Texts of unlike lengths, so that sorting by length moves them."""
    return encode_inputs(exported.student.tokenizer, tiny_split("dev", 21, seed=4).texts, 24)


@pytest.mark.parametrize("batch_size", [1, 2, 8, 100])
def test_rows_come_back_in_their_order(exported: Any, rows: EncodedRows, batch_size: int) -> None:
    assert list(rows.lengths) != sorted(rows.lengths)
    session = open_session(exported.file)
    single = [run_session(session, pad_rows(rows, np.array([i])))[0] for i in range(len(rows))]
    found = session_logits(session, rows, batch_size)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.stack(single), atol=1e-5)


def test_logits_are_torchs(exported: Any, rows: EncodedRows) -> None:
    expected = exported.student.logits(tiny_split("dev", 21, seed=4).inputs())
    found = session_logits(open_session(exported.file, threads=1), rows)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_session_runs_on_the_cpu_with_the_threads_asked_for(exported: Any, threads: int) -> None:
    session = open_session(exported.file, threads)
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert session.get_session_options().intra_op_num_threads == threads
