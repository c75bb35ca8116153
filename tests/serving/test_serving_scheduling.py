"""What runs together and in which order, who fails when one text fails, when it is ready."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import batching, scheduling
from serving.batching import LENGTH_RATIO, WaitingLine, near_the_shortest
from serving.errors import InferenceError
from serving.predictor import Prediction, Predictor
from serving.scheduling import NotReadyError, QueueFullError, Scheduler

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=30).map(sorted)


@given(lengths=LENGTHS, budget=st.integers(0, 200))
def test_a_batch_is_near_in_length_and_within_the_budget(lengths: list[int], budget: int) -> None:
    count = near_the_shortest(lengths, budget)
    batch = lengths[:count]
    assert len(batch) == 1 or len(batch) * batch[-1] <= budget
    assert batch[-1] <= LENGTH_RATIO * batch[0]
    if count < len(lengths):  # nobody who fits is left out
        longer = lengths[count]
        assert longer > LENGTH_RATIO * batch[0] or (count + 1) * longer > budget


def test_batches_by_hand() -> None:
    lengths = [5, 5, 6, 9, 10, 40]
    assert near_the_shortest(lengths, 128) == 3  # 9 is more than 1.5 times 5
    assert near_the_shortest(lengths, 17) == 2  # a third row of 6 would make 18
    assert near_the_shortest(lengths, 0) == 1
    assert near_the_shortest(lengths[5:], 8) == 1  # longer than the budget: alone


def line_of(*lengths: int, budget: int = 20) -> WaitingLine[range]:
    """A line whose texts are ranges, which have a length and a name of their own."""
    line = WaitingLine[range](budget)
    for length in lengths:
        line.add(range(length))
    return line


def lengths_of(texts: Sequence[range]) -> list[int]:
    return [len(text) for text in texts]


def test_a_window_is_run_from_short_to_long_before_the_next_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batching, "WINDOW_TEXTS", 3)
    line = line_of(9, 6, 7, 7, 6, 8)  # nobody is short enough to overtake the 9
    assert lengths_of(line.take()) == [6, 7]  # 9 would make 27 of 20 tokens
    assert lengths_of(line.take()) == [9]
    assert lengths_of(line.take()) == [6, 7]
    assert lengths_of(line.take()) == [8]
    assert len(line) == 0


def test_a_short_text_waits_for_one_long_run_at_most() -> None:
    line = line_of(40, 41, 42)
    assert lengths_of(line.take()) == [40]
    line.add(range(30))  # not so much shorter that it would overtake
    line.add(range(8))
    line.add(range(9))
    assert lengths_of(line.take()) == [8, 9]
    line.add(range(4))
    assert lengths_of(line.take()) == [41]  # long texts take turns with the short ones
    assert lengths_of(line.take()) == [4]
    assert lengths_of(line.take()) == [42]
    assert lengths_of(line.take()) == [30]
    assert len(line) == 0


@given(
    steps=st.lists(st.lists(st.integers(1, 60), max_size=6), max_size=60),
    budget=st.integers(0, 100),
    window=st.integers(1, 8),
)
def test_every_text_is_run_once_and_soon(steps: list[list[int]], budget: int, window: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching, "WINDOW_TEXTS", window)
        line = WaitingLine[list[int]](budget)
        arrived: list[list[int]] = []
        entered: dict[int, int] = {}
        run: set[int] = set()
        takes = 0
        for step in [*steps, *([[]] * 400)]:
            for length in step:
                text = [length] * length
                arrived.append(text)
                ahead = len(arrived) - 1 - len(run)
                entered[id(text)] = takes + 2 * (ahead + window + 1)
                line.add(text)
            if not len(line):
                continue
            taken = line.take()
            takes += 1
            assert len(taken) == 1 or len(taken) * len(taken[-1]) <= budget
            for text in taken:
                assert id(text) not in run
                # at worst everyone ahead runs alone, each followed by texts that overtake
                assert takes <= entered[id(text)]
                run.add(id(text))
        assert len(run) == len(arrived)


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


async def send_all(
    scheduler: Scheduler, requests: Sequence[list[str]], held: Recorded, hold: float = 0.0
) -> Any:
    """The first request alone; the others while it is held back; then all the answers.

    Args:
        hold: for how many seconds the first stays held back once the others are queued.
    """
    await scheduler.start()
    try:
        tasks = [asyncio.create_task(scheduler.predict(requests[0]))]
        await asyncio.to_thread(held.started.wait, 20)
        tasks += [asyncio.create_task(scheduler.predict(request)) for request in requests[1:]]
        await asyncio.sleep(0)  # lets every one of them be queued
        begin = time.monotonic()
        while time.monotonic() - begin < hold:  # a sleep may be a little short
            await asyncio.sleep(hold)
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


def test_who_finds_the_queue_full_is_let_in_when_there_is_room_in_order(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "HOLD_SECONDS", 20.0)
    held = Recorded(predictor, monkeypatch)
    scheduler = Scheduler(predictor, 1, 2)
    order: list[str] = []

    async def ask(name: str, texts: list[str]) -> None:
        await scheduler.predict(texts)
        order.append(name)

    async def main() -> None:
        await scheduler.start()
        first = asyncio.create_task(ask("first", ["a"]))
        await asyncio.to_thread(held.started.wait, 20)
        # the second does not fit; the third would, but does not overtake; the fourth leaves
        tasks = [
            asyncio.create_task(ask(name, texts))
            for name, texts in (("second", ["a", "a"]), ("third", ["a"]), ("fourth", ["a"]))
        ]
        await asyncio.sleep(0.05)
        assert scheduler.waiting == 1
        tasks.pop().cancel()
        held.release.set()
        await asyncio.gather(first, *tasks)
        scheduler.close()

    asyncio.run(main())
    assert order == ["first", "second", "third"]
    assert scheduler.waiting == 0
    assert [len(batch) for batch in held.batches] == [1, 2, 1]


def test_who_is_held_is_refused_in_the_end_and_leaves_nothing_behind(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "HOLD_SECONDS", 0.05)
    held = Recorded(predictor, monkeypatch)
    scheduler = Scheduler(predictor, 1, 1)

    async def main() -> None:
        await scheduler.start()
        first = asyncio.create_task(scheduler.predict(["a"]))
        await asyncio.to_thread(held.started.wait, 20)
        begin = time.monotonic()
        with pytest.raises(QueueFullError):
            await scheduler.predict(["a film"])
        assert time.monotonic() - begin >= 0.05
        monkeypatch.setattr(scheduling, "HOLD_SECONDS", 20.0)
        waits = asyncio.create_task(scheduler.predict(["a film"]))
        await asyncio.sleep(0.01)
        threading.Timer(0.05, held.release.set).start()
        await asyncio.to_thread(scheduler.close)  # ends those that are held, too
        assert len(await first) == 1
        with pytest.raises(NotReadyError):
            await waits

    asyncio.run(main())
    assert [len(batch) for batch in held.batches] == [1]


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
    asyncio.run(send_all(Scheduler(predictor, 1, 64, counted), texts, held, hold=0.03))
    assert len(counted.tokenizations) >= 2
    # the run of three failed: told of are those of its members that did not
    assert [run[0] for run in counted.runs] == [[3], [4], [4]]
    for lengths, waited, seconds in counted.runs:
        assert len(waited) == len(lengths)
        assert min(waited) >= 0
        assert seconds >= 0
    # the first run was held back for 30 ms after the others had been queued
    first, *others = counted.runs
    assert first[2] >= 0.03
    assert all(wait >= 0.03 for _, waited, _ in others for wait in waited)
