"""Commands that run in this process must not change it for good."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def same_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the allocator of the test process alone."""
    monkeypatch.setattr("factory.runtime.environment.keep_freed_memory", lambda: None)
