"""Measure the latency of several models in turn, so that drift affects all of them equally."""

from __future__ import annotations

import bisect
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from factory.runtime.progress import bar

CALLS = 40
ROUNDS = 3
WARM_UP_CALLS = 5

Inputs = Sequence[str] | Sequence[tuple[str, str]]
Runner = Callable[[Inputs], object]


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of one call from texts to logits, tokenization included."""

    p50_ms: float
    p95_ms: float
    calls: int

    def to_facts(self) -> dict[str, Any]:
        """The latency as JSON data."""
        return asdict(self)


def measure_latency(
    runners: Mapping[str, Runner], inputs: Inputs, batch_size: int = 1, threads: int = 1
) -> dict[str, Latency]:
    """Time every runner on the same inputs, in random order for each input.

    Args:
        runners: by name, a function that takes a list of inputs.
        inputs: texts or pairs; at most 40 calls, evenly spread over the list, are made of them.
        batch_size: inputs per call.
        threads: of torch; runners that are not torch models set their own.
    """
    calls: list[Inputs] = [
        [inputs[(start + step) % len(inputs)] for step in range(batch_size)]  # type: ignore[misc]
        for start in _starts(inputs)
    ]
    names = list(runners)
    times: dict[str, list[float]] = {name: [] for name in names}
    random = np.random.default_rng(0)
    with _torch_threads(threads), bar("latency", ROUNDS * len(calls), "call") as progress:
        for name in names:
            for call in calls[:WARM_UP_CALLS]:
                runners[name](call)
        for _ in range(ROUNDS):
            for call in calls:
                for position in random.permutation(len(names)):
                    name = names[position]
                    started = time.perf_counter()
                    runners[name](call)
                    times[name].append((time.perf_counter() - started) * 1000)
                progress.advance()
    return {
        name: Latency(
            float(np.quantile(values, 0.5)), float(np.quantile(values, 0.95)), len(values)
        )
        for name, values in times.items()
    }


def inputs_of_length(
    inputs: Inputs, tokens: int, lengths: Callable[[Inputs], Sequence[int]]
) -> Inputs:
    """Inputs of at most `tokens` tokens, and as close to that as whole words allow.

    Each starts with one of `inputs` and continues with the next ones, wrapping around at the end.

    Args:
        lengths: tokens of each input, with special tokens and without truncation.
    """
    return [_of_length(inputs, start, tokens, lengths) for start in _starts(inputs)]  # type: ignore[return-value]


def _of_length(
    inputs: Inputs, start: int, tokens: int, lengths: Callable[[Inputs], Sequence[int]]
) -> str | tuple[str, ...]:
    rows = [inputs[(start + step) % len(inputs)] for step in range(min(tokens, len(inputs)))]
    sides = [[row] if isinstance(row, str) else list(row) for row in rows]
    words = [" ".join(side).split() for side in zip(*sides, strict=True)]
    words = [side * (tokens // max(1, len(side)) + 1) for side in words]

    def cut(count: int) -> str | tuple[str, ...]:
        parts = tuple(" ".join(side[:count]) for side in words)
        return parts[0] if len(parts) == 1 else parts

    # the most words that fit: a word is at least one token
    too_many = bisect.bisect_right(
        range(tokens + 1),
        tokens,
        key=lambda count: lengths([cut(count)])[0],  # type: ignore[arg-type]
    )
    return cut(too_many - 1)


def _starts(inputs: Inputs) -> list[int]:
    """At most `CALLS` positions, evenly spread over the inputs."""
    starts: list[int] = (
        np.linspace(0, len(inputs) - 1, min(CALLS, len(inputs))).astype(int).tolist()
    )
    return starts


@contextlib.contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    """Run torch on as many threads as the ONNX sessions it is compared with."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
