"""The device that training runs on."""

from __future__ import annotations

import pytest
import torch

from factory.errors import FactoryError
from factory.runtime.distributed import pick_device


@pytest.mark.parametrize("usable", [True, False])
def test_the_device_is_the_one_asked_for(monkeypatch: pytest.MonkeyPatch, usable: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: usable)
    assert pick_device("cpu") == "cpu"
    assert pick_device("auto") == ("cuda" if usable else "cpu")
    if usable:
        assert pick_device("cuda") == "cuda"
    else:
        with pytest.raises(FactoryError, match="no usable CUDA device"):
            pick_device("cuda")
