"""What enters the products of an exported student: ranges, channel sizes and moments, measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from factory.errors import ParityError
from factory.export.quantize.form import find_products
from factory.models.encoding import EncodedRows, pad_rows

Method = Literal["minimum-maximum", "percentile", "entropy"]
Floats = NDArray[np.float32]
BINS = 2048
LEVELS = 256


@dataclass(frozen=True, slots=True)
class ActivationStatistics:
    """What calibration saw of one activation.

    Shapes:
        low, high: (width,), smallest and largest number per channel
        moments: (width, width), mean of x x^T over tokens
        counts: (bins,), numbers in equal steps between the smallest and the largest of all
    """

    low: Floats
    high: Floats
    moments: Floats
    counts: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ActivationRanges:
    """The range that 256 levels are spread over, per activation, and what it was taken from."""

    ranges: Mapping[str, tuple[float, float]]
    statistics: Mapping[str, ActivationStatistics]

    def channel_maxima(self, name: str) -> Floats:
        """Largest magnitude per channel: (width,)."""
        seen = self.statistics[name]
        return np.maximum(np.abs(seen.low), np.abs(seen.high))

    def divided(self, name: str, factors: Floats) -> tuple[float, float]:
        """The range of an activation whose channels are divided by positive factors, (width,)."""
        low, high = self.ranges[name]
        seen = self.statistics[name]
        return (
            float((np.maximum(seen.low, low) / factors).min()),
            float((np.minimum(seen.high, high) / factors).max()),
        )


def measure_activations(source: Path, rows: EncodedRows) -> dict[str, ActivationStatistics]:
    """Run a plain fp32 file over calibration rows and keep statistics of every product's input.

    Row by row, so that no number comes from padding; twice, so that memory stays at one histogram
    and one matrix of moments per activation.

    Args:
        rows: of the train split; dev and test measure what comes out.

    Raises:
        ParityError: there are no rows, or an activation is not finite.
    """
    if not len(rows):
        raise ParityError("there are no calibration rows; give some of the train split")
    session, names = _session_of_activations(source)
    low: dict[str, Floats] = {}
    high: dict[str, Floats] = {}
    moments: dict[str, Floats] = {}
    tokens = dict.fromkeys(names, 0)
    for name, values in _activations(session, names, rows):
        if not np.isfinite(values).all():
            raise ParityError(f"{source}: {name} is not finite on the calibration rows")
        low[name] = np.minimum(low.get(name, np.inf), values.min(axis=0))
        high[name] = np.maximum(high.get(name, -np.inf), values.max(axis=0))
        moments[name] = moments.get(name, np.float32(0)) + values.T @ values
        tokens[name] += len(values)
    counts = {name: np.zeros(BINS, dtype=np.int64) for name in names}
    for name, values in _activations(session, names, rows):
        counts[name] += np.histogram(values, BINS, (low[name].min(), high[name].max()))[0]
    return {
        name: ActivationStatistics(
            low[name], high[name], moments[name] / np.float32(tokens[name]), counts[name]
        )
        for name in names
    }


def activation_ranges(
    statistics: Mapping[str, ActivationStatistics],
    method: Method = "minimum-maximum",
    percentile: float = 99.99,
) -> ActivationRanges:
    """Choose each activation's range.

    Args:
        method: "minimum-maximum" keeps all that was seen; "percentile" leaves the same share out
            at both ends; "entropy" takes the cut whose 256 levels keep most of the distribution's
            information (the smallest Kullback-Leibler divergence from the histogram).
        percentile: how much of the numbers "percentile" keeps.
    """
    ranges = {}
    for name, seen in statistics.items():
        edges = np.linspace(float(seen.low.min()), float(seen.high.max()), len(seen.counts) + 1)
        if method == "percentile":
            ranges[name] = _percentile_range(edges, seen.counts, percentile)
        elif method == "entropy":
            ranges[name] = _entropy_range(edges, seen.counts)
        else:
            ranges[name] = (float(edges[0]), float(edges[-1]))
    return ActivationRanges(ranges, statistics)


def _percentile_range(
    edges: NDArray[np.float64], counts: NDArray[np.int64], percentile: float
) -> tuple[float, float]:
    share = np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()
    outside = (1 - percentile / 100) / 2
    return float(np.interp(outside, share, edges)), float(np.interp(1 - outside, share, edges))


def _entropy_range(edges: NDArray[np.float64], counts: NDArray[np.int64]) -> tuple[float, float]:
    """Cut from whichever end holds fewer numbers, and keep the best of the cuts."""
    first, last = 0, len(counts)
    best, least = (first, last), np.inf
    step = len(counts) // 128
    while last - first > LEVELS:
        divergence = _divergence(counts, first, last)
        if divergence < least:
            best, least = (first, last), divergence
        if counts[first : first + step].sum() <= counts[last - step : last].sum():
            first += step
        else:
            last -= step
    return float(edges[best[0]]), float(edges[best[1]])


def _divergence(counts: NDArray[np.int64], first: int, last: int) -> float:
    """Kullback-Leibler divergence of the cut, 256-level histogram from the whole one."""
    inside = counts[first:last].astype(np.float64)
    cut = inside.copy()
    cut[0] += counts[:first].sum()
    cut[-1] += counts[last:].sum()
    group = np.arange(len(inside)) * LEVELS // len(inside)
    filled = inside > 0
    sums = np.bincount(group, inside, LEVELS)
    sizes = np.bincount(group, filled, LEVELS)
    levels = np.where(filled, sums[group] / np.maximum(sizes[group], 1), 0.0)
    reference, model = cut / cut.sum(), np.maximum(levels / levels.sum(), 1e-12)
    there = reference > 0
    return float((reference[there] * np.log(reference[there] / model[there])).sum())


def _session_of_activations(source: Path) -> tuple[Any, list[str]]:
    """A session of the file with the products' inputs as outputs, and their names."""
    import onnx
    import onnxruntime

    model = onnx.load(source)
    names = list(dict.fromkeys(product.source for product in find_products(model.graph)))
    known = {value.name for value in model.graph.output}
    for name in names:
        if name not in known:
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session, names


def _activations(
    session: Any, names: Sequence[str], rows: EncodedRows
) -> Iterator[tuple[str, Floats]]:
    """Every named activation of every row: (tokens, width)."""
    wanted = {value.name for value in session.get_inputs()}
    for position in range(len(rows)):
        batch = pad_rows(rows, np.array([position]))
        feed = {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "token_type_ids": batch.token_type_ids,
        }
        found = session.run(list(names), {n: v for n, v in feed.items() if n in wanted})
        for name, values in zip(names, found, strict=True):
            yield name, values.reshape(-1, values.shape[-1])
