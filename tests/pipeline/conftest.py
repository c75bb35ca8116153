"""Fixtures of the pipeline tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from factory.evaluation import latency


@pytest.fixture(scope="module")
def few_timings() -> Iterator[None]:
    """For tests that do not need exact latencies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "CALLS", 4)
        patch.setattr(latency, "ROUNDS", 1)
        yield
