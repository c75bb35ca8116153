"""Latency: which calls are timed, in which order, and the quantiles, with a simulated clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from factory.evaluation import latency
from factory.evaluation.latency import inputs_of_length, measure_latency


class Clock:
    """Time that passes only while a runner runs."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.calls: list[tuple[str, str]] = []

    def runner(self, name: str, cost: Callable[[str], float]) -> Callable[[object], None]:
        """A runner that takes `cost` seconds for its one text."""

        def run(inputs: object) -> None:
            text = " ".join(inputs)  # type: ignore[call-overload]
            self.calls.append((name, text))
            self.seconds += cost(text)

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replaces the clock that is read."""
    clock = Clock()
    monkeypatch.setattr(latency.time, "perf_counter", lambda: clock.seconds)
    return clock


def test_quantiles_are_of_single_calls_in_milliseconds(clock: Clock) -> None:
    texts = [str(number) for number in range(1, 21)]  # 1 to 20 ms, three times over
    runners = {
        "ramp": clock.runner("ramp", lambda text: int(text) / 1000),
        "flat": clock.runner("flat", lambda text: 0.004),
    }
    found = measure_latency(runners, texts)
    times = sorted([*range(1, 21)] * 3)  # 60 values; quantile q lies at position 59 q
    p95 = times[56] + 0.05 * (times[57] - times[56])
    assert found["ramp"].p50_ms == pytest.approx((times[29] + times[30]) / 2)
    assert found["ramp"].p95_ms == pytest.approx(p95)
    assert found["ramp"].calls == 60
    assert (found["flat"].p50_ms, found["flat"].p95_ms) == pytest.approx((4.0, 4.0))


def test_at_most_forty_texts_spread_over_the_list(clock: Clock) -> None:
    texts = [f"{number}" for number in range(391)]
    found = measure_latency({"one": clock.runner("one", lambda text: 0.001)}, texts)
    used = {int(text) for _, text in clock.calls}
    assert used == set(range(0, 391, 10))
    assert len(used) == 40
    assert found["one"].calls == 120


def test_warm_up_comes_first_and_is_not_timed(clock: Clock) -> None:
    def cost(text: str) -> float:
        return 1.0 if len(clock.calls) <= 5 else 0.002

    found = measure_latency({"one": clock.runner("one", cost)}, [str(n) for n in range(10)])
    assert found["one"].p95_ms == pytest.approx(2.0)
    assert len(clock.calls) == 5 + 30


def test_runners_take_turns_on_the_same_text_in_changing_order(clock: Clock) -> None:
    names = ("a", "b", "c")
    runners = {name: clock.runner(name, lambda text: 0.001) for name in names}
    measure_latency(runners, [str(n) for n in range(8)])
    timed = clock.calls[3 * 5 :]
    turns = [timed[start : start + 3] for start in range(0, len(timed), 3)]
    assert len(turns) == 3 * 8
    assert all(len({text for _, text in turn}) == 1 for turn in turns)
    assert all({name for name, _ in turn} == set(names) for turn in turns)
    assert len({tuple(name for name, _ in turn) for turn in turns}) > 1


def test_batches_wrap_around_at_the_end(clock: Clock) -> None:
    runners = {"one": clock.runner("one", lambda text: 0.001)}
    found = measure_latency(runners, [str(number) for number in range(5)], batch_size=3)
    assert {call for _, call in clock.calls} == {"0 1 2", "1 2 3", "2 3 4", "3 4 0", "4 0 1"}
    assert found["one"].calls == 15


def test_texts_continue_with_the_next_ones_to_the_requested_length() -> None:
    def lengths(inputs: object) -> list[int]:  # letters, and two special tokens
        return [len(text.replace(" ", "")) + 2 for text in inputs]  # type: ignore[attr-defined]

    found = inputs_of_length(["aa b", "ccc", "d ee"], 8, lengths)
    assert list(found) == ["aa b ccc", "ccc d ee", "d ee aa b"]
    assert list(inputs_of_length(["aa b", "ccc"], 7, lengths)) == ["aa b", "ccc aa"]
    assert list(inputs_of_length(["a"], 6, lengths)) == ["a a a a"]
    assert list(inputs_of_length(["abcdef"], 5, lengths)) == [""]


def test_both_texts_of_a_pair_get_the_same_number_of_words() -> None:
    def lengths(inputs: object) -> list[int]:
        return [len(f"{one} {two}".split()) + 3 for one, two in inputs]  # type: ignore[attr-defined]

    pairs = [("a b", "c"), ("d", "e f")]
    found = inputs_of_length(pairs, 8, lengths)
    assert list(found) == [("a b", "c e"), ("d a", "e f")]


@pytest.mark.parametrize(("fails", "threads"), [(False, 2), (True, 1)])
def test_the_number_of_torch_threads(fails: bool, threads: int) -> None:
    import torch

    seen = []

    def run(inputs: object) -> None:
        seen.append(torch.get_num_threads())
        if fails:
            raise ArithmeticError

    before = torch.get_num_threads()
    if fails:
        with pytest.raises(ArithmeticError):
            measure_latency({"one": run}, ["x"], threads=threads)
    else:
        measure_latency({"one": run}, ["x"], threads=threads)
    assert set(seen) == {threads}
    assert torch.get_num_threads() == before
