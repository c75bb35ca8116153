"""What runs together and in which order, who fails when one text fails, when it is ready."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import scheduling
from serving.batching import LENGTH_RATIO, batch_around
from serving.errors import InferenceError
from serving.predictor import Prediction, Predictor
from serving.scheduling import NotReadyError, QueueFullError, Scheduler

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=30).map(sorted)


@given(lengths=LENGTHS, start=st.integers(0, 29), budget=st.integers(1, 200))
def test_a_batch_is_near_in_length_and_within_the_budget(
    lengths: list[int], start: int, budget: int
) -> None:
    start = min(start, len(lengths) - 1)
    chosen = batch_around(lengths, start, budget)
    batch = lengths[chosen]
    assert chosen.start <= start < chosen.stop
    assert len(batch) == 1 or len(batch) * batch[-1] <= budget
    assert batch[-1] <= LENGTH_RATIO * batch[0]
    if chosen.stop < len(lengths):  # nobody who fits is left out
        longer = lengths[chosen.stop]
        assert longer > LENGTH_RATIO * batch[0] or (len(batch) + 1) * longer > budget


def test_batches_by_hand() -> None:
    lengths = [5, 5, 6, 9, 10, 40]
    assert batch_around(lengths, 0, 128) == slice(0, 3)  # 9 is more than 1.5 times 5
    assert batch_around(lengths, 0, 17) == slice(0, 2)  # a third row of 6 would make 18
    assert batch_around(lengths, 4, 128) == slice(3, 5)  # 9 adds no padding to 10
    assert batch_around(lengths, 5, 8) == slice(5, 6)  # longer than the budget: alone


class Recorded:
    """Notes the batches a predictor runs; the first one waits until it is let go."""

    def __init__(self, predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[list[int]] = []
        self.release = threading.Event()
        self.started = threading.Event()
        original = predictor.answer

        def answer(batch: Sequence[Any]) -> list[Prediction]:
            self.batches.append([len(item) for item in batch])
            self.started.set()
            assert self.release.wait(20)
            return original(batch)

        monkeypatch.setattr(predictor, "answer", answer)


async def send_all(scheduler: Scheduler, requests: Sequence[list[str]], held: Recorded) -> Any:
    """The first request alone; the others while it is held back; then all the answers."""
    await scheduler.start()
    try:
        tasks = [asyncio.create_task(scheduler.predict(requests[0]))]
        await asyncio.to_thread(held.started.wait, 20)
        tasks += [asyncio.create_task(scheduler.predict(request)) for request in requests[1:]]
        await asyncio.sleep(0)  # lets every one of them be queued
        held.release.set()
        return await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        scheduler.close()


def test_what_waits_runs_together_sorted_by_length_whoever_sent_it(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Recorded(predictor, monkeypatch)
    texts = [["a"], ["a film", "a " * 10], ["good film"], ["bad " * 10], ["a film was"]]
    expected = [predictor.predict(request) for request in texts]
    held.batches.clear()
    found = asyncio.run(send_all(Scheduler(predictor, 1, 64), texts, held))
    assert held.batches == [[3], [4, 4, 5], [12, 12]]
    for answers, wanted in zip(found, expected, strict=True):
        for answer, one in zip(answers, wanted, strict=True):
            assert answer.tokens == one.tokens
            assert answer.scores == pytest.approx(one.scores, abs=1e-6)


def test_answers_that_depend_on_neighbours_come_from_runs_of_one_text(
    make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor.open(make_bundle(neighbour_independent=False))
    held = Recorded(predictor, monkeypatch)
    texts = [["a"], ["a film", "a film"], ["a film"]]
    asyncio.run(send_all(Scheduler(predictor, 1, 64), texts, held))
    assert held.batches == [[3], [4], [4], [4]]


def test_a_text_that_fails_the_run_fails_alone(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Recorded(predictor, monkeypatch)
    texts = [["a"], ["good film"], ["poison film"], ["nanny film"], ["bad film"]]
    scheduler = Scheduler(predictor, 1, 64)
    found = asyncio.run(send_all(scheduler, texts, held))
    kinds = [InferenceError if "poison" in t or "nanny" in t else list for (t,) in texts]
    assert [type(answer) for answer in found] == kinds
    assert held.batches == [[3], [4, 4, 4, 4], [4], [4], [4], [4]]
    assert scheduler.waiting == 0


def test_a_long_text_is_not_passed_over_for_ever(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor, "batch_tokens", 4)  # runs of one text
    held = Recorded(predictor, monkeypatch)
    texts = [["a"], ["a " * 10], *([["a film"]] * 6)]
    asyncio.run(send_all(Scheduler(predictor, 1, 64), texts, held))
    turns = scheduling.TURNS_BEFORE_OLDEST
    assert [batch[0] for batch in held.batches].index(12) < turns
    assert len(held.batches) == 8


def test_what_nobody_waits_for_any_more_is_not_run(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Recorded(predictor, monkeypatch)
    scheduler = Scheduler(predictor, 1, 8)

    async def leave() -> None:
        await scheduler.start()
        first = asyncio.create_task(scheduler.predict(["a"]))
        await asyncio.to_thread(held.started.wait, 20)
        gone = asyncio.create_task(scheduler.predict(["a film"] * 6))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        assert scheduler.waiting == 7
        held.release.set()
        await first
        while scheduler.waiting:
            await asyncio.sleep(0.01)
        await scheduler.predict(["a"] * 8)  # there is room again
        scheduler.close()

    asyncio.run(leave())
    assert held.batches == [[3], [3] * 8]
    assert scheduler.waiting == 0


def test_a_run_that_hangs_ends_readiness(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "RUN_SECONDS", 0.05)
    held = Recorded(predictor, monkeypatch)
    scheduler = Scheduler(predictor, 1, 8)

    async def hang() -> None:
        await scheduler.start()
        assert scheduler.ready
        task = asyncio.create_task(scheduler.predict(["a"]))
        await asyncio.to_thread(held.started.wait, 20)
        await asyncio.sleep(0.1)
        assert not scheduler.ready
        with pytest.raises(NotReadyError):
            await scheduler.predict(["a"])
        held.release.set()
        await task
        while not scheduler.ready:  # the thread takes note after it has answered
            await asyncio.sleep(0.01)
        scheduler.close()
        assert not scheduler.ready

    asyncio.run(hang())


def test_closing_ends_those_that_wait(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Recorded(predictor, monkeypatch)
    scheduler = Scheduler(predictor, 1, 4)

    async def close() -> None:
        await scheduler.start()
        first = asyncio.create_task(scheduler.predict(["a"]))
        await asyncio.to_thread(held.started.wait, 20)
        second = asyncio.create_task(scheduler.predict(["a", "a"]))
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            await scheduler.predict(["a", "a"])
        threading.Timer(0.05, held.release.set).start()
        await asyncio.to_thread(scheduler.close)
        assert len(await first) == 1  # it was running
        with pytest.raises(NotReadyError):
            await second

    asyncio.run(close())


def test_a_request_for_nothing_is_answered(predictor: Predictor) -> None:
    async def ask() -> list[Prediction]:
        scheduler = Scheduler(predictor, 1, 4)
        await scheduler.start()
        try:
            return await scheduler.predict([])
        finally:
            scheduler.close()

    assert asyncio.run(ask()) == []


class Counted:
    """Notes what the inference threads tell."""

    def __init__(self) -> None:
        self.tokenizations: list[float] = []
        self.runs: list[tuple[list[int], list[float], float]] = []

    def tokenized(self, seconds: float) -> None:
        self.tokenizations.append(seconds)

    def ran(self, batch: Sequence[Any], waited: Sequence[float], seconds: float) -> None:
        self.runs.append(([len(item) for item in batch], list(waited), seconds))


def test_an_observer_is_told_of_every_run(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Recorded(predictor, monkeypatch)
    counted = Counted()
    texts = [["a"], ["good film", "bad film"], ["poison"]]
    asyncio.run(send_all(Scheduler(predictor, 1, 64, counted), texts, held))
    assert len(counted.tokenizations) >= 2
    # the run of three failed: told of are those of its members that did not
    assert [run[0] for run in counted.runs] == [[3], [4], [4]]
    for lengths, waited, seconds in counted.runs:
        assert len(waited) == len(lengths)
        assert min(waited) >= 0
        assert seconds >= 0
    # what came while the first was held back has waited for it
    assert counted.runs[1][1][0] > counted.runs[0][1][0]
