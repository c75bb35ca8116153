"""Applications in this process, with inference that can be held back."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from serving.app import create_app
from serving.predictor import Predictor
from serving.settings import Settings

with warnings.catch_warnings():
    # starlette would rather have httpx2; the development group has httpx, which it still takes
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient


@contextmanager
def client_of(bundle: Any, **given: Any) -> Iterator[TestClient]:
    """A running application with some settings."""
    with TestClient(create_app(bundle, Settings(threads=1, **given))) as running:
        yield running


@contextmanager
def held_back(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Inference that waits until the block ends; the event tells that it has begun."""
    begun, release = threading.Event(), threading.Event()
    original = predictor.answer

    def held(batch: Any) -> Any:
        begun.set()
        assert release.wait(20)
        return original(batch)

    monkeypatch.setattr(predictor, "answer", held)
    try:
        yield begun
    finally:
        release.set()
        monkeypatch.setattr(predictor, "answer", original)
