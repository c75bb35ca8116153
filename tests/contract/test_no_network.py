"""The guard around the tests themselves: nothing but this machine can be reached."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

BLOCKED = "a test that is not marked network tried to reach"


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("2001:db8::1", 80), ("example.org", 80)])
def test_other_machines_are_out_of_reach(address: tuple[str, int]) -> None:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family) as connection:
        for reach in (connection.connect, connection.connect_ex):
            with pytest.raises(Exception, match=BLOCKED):
                reach(address)
    with pytest.raises(Exception, match=BLOCKED):
        socket.create_connection(address, timeout=1)


def test_this_machine_is_within_reach() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with socket.create_connection(("localhost", listener.getsockname()[1]), timeout=5):
            pass


def test_hub_libraries_are_offline_and_cache_elsewhere() -> None:
    from huggingface_hub import constants

    assert constants.HF_HUB_OFFLINE
    assert constants.HF_HUB_CACHE.startswith(os.environ["HF_HOME"])
    assert not Path(os.environ["HF_HOME"]).is_relative_to(Path.home() / ".cache")
