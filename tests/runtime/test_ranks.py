"""The rank of a process, and what a single one does with the functions for many."""

from __future__ import annotations

import pytest
import torch
from helpers.pipeline_run import python

from factory.errors import FactoryError, ProcessesError
from factory.runtime import distributed
from factory.runtime.distributed import Rank, pick_device
from factory.runtime.progress import say


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without torchrun's variables."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def set_environment(patch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        patch.setenv(name, value)


def test_the_environment_names_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert distributed.from_environment() == Rank(0, 1)
    set_environment(monkeypatch, RANK="5", WORLD_SIZE="8", LOCAL_RANK="1")
    assert distributed.from_environment() == Rank(5, 8, 1)
    assert not distributed.from_environment().is_main


def test_one_process_is_alone_whatever_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
    assert distributed.from_environment() == Rank(0, 1)
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setenv("RANK", "3")  # of something else's
    assert distributed.from_environment().is_main


def test_variables_that_are_no_numbers_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, RANK="a", WORLD_SIZE="2")
    with pytest.raises(ProcessesError, match="RANK=a, WORLD_SIZE=2, LOCAL_RANK=None: not integers"):
        distributed.from_environment()


def test_a_group_without_a_meeting_place_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, RANK="0", WORLD_SIZE="2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with (
        pytest.raises(
            ProcessesError, match=r"cannot join the process group .* start with torchrun"
        ),
        distributed.process_group("cpu"),
    ):
        raise AssertionError("joined")


def test_alone_nothing_of_torch_is_loaded() -> None:
    program = (
        "import sys\n"
        "from factory.runtime import distributed\n"
        "from factory.stages.build import check_same_fingerprint\n"
        "with distributed.process_group('auto'):\n"
        "    assert distributed.on_main_process(lambda: 3) == 3\n"
        "    assert distributed.gather('a') == ['a']\n"
        "    distributed.barrier()\n"
        "    check_same_fingerprint('a')\n"
        "print('torch' in sys.modules)"
    )
    assert python(program) == "False\n"


def test_only_the_first_process_talks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank in ("0", "1"):
        set_environment(monkeypatch, RANK=rank, WORLD_SIZE="2")
        say(f"I am {rank}")
    assert capsys.readouterr().err == "I am 0\n"


def test_every_process_trains_on_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("auto") == "cuda"
    assert pick_device("cpu", Rank(1, 2, 1)) == "cpu"
    assert pick_device("auto", Rank(5, 8, 1)) == "cuda:1"
    with pytest.raises(FactoryError, match="process 3 on a machine with 2 CUDA devices"):
        pick_device("cuda", Rank(2, 3, 2))
