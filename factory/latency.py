"""Latency of several forms of one model, interleaved so that a drifting machine hurts all alike."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from factory.progress import bar

TEXTS = 40
ROUNDS = 3
WARM_UP_TEXTS = 5

Inputs = Sequence[str] | Sequence[tuple[str, str]]
Runner = Callable[[Inputs], object]


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from text to logits, tokenization included, one text per call, one thread."""

    p50_ms: float
    p95_ms: float
    calls: int

    def facts(self) -> dict[str, Any]:
        """The latency as JSON data."""
        return asdict(self)


def measure_latency(runners: Mapping[str, Runner], inputs: Inputs) -> dict[str, Latency]:
    """Time each runner on the same texts, one at a time, in turn and in changing order.

    Args:
        runners: by name, a function that takes a list of one input.
        inputs: texts or pairs; at most 40, evenly spread over the list, are used.
    """
    chosen = [
        inputs[i] for i in np.linspace(0, len(inputs) - 1, min(TEXTS, len(inputs))).astype(int)
    ]
    names = list(runners)
    times: dict[str, list[float]] = {name: [] for name in names}
    random = np.random.default_rng(0)
    with _one_thread(), bar("latency", ROUNDS * len(chosen), "text") as progress:
        for name in names:
            for item in chosen[:WARM_UP_TEXTS]:
                runners[name]([item])
        for _ in range(ROUNDS):
            for item in chosen:
                for position in random.permutation(len(names)):
                    name = names[position]
                    started = time.perf_counter()
                    runners[name]([item])
                    times[name].append((time.perf_counter() - started) * 1000)
                progress.advance()
    return {
        name: Latency(
            float(np.quantile(values, 0.5)), float(np.quantile(values, 0.95)), len(values)
        )
        for name, values in times.items()
    }


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Torch on one thread, like the ONNX sessions it is compared with."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
