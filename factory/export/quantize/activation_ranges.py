"""Ranges and second moments of the inputs of a student's products, from calibration rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from factory.errors import ParityError
from factory.export.parity import open_session
from factory.export.quantize.form import find_products
from factory.models.encoding import EncodedRows

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ActivationStatistics:
    """Statistics of one activation over the calibration tokens.

    Shapes:
        low, high: (width,), smallest and largest value per channel
        moments: (width, width), mean of x x^T over tokens
    """

    low: Floats
    high: Floats
    moments: Floats

    def maxima(self) -> Floats:
        """Largest magnitude per channel: (width,)."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    def divided(self, factors: Floats) -> ActivationStatistics:
        """The statistics after each channel is divided by a positive factor, (width,)."""
        moments = (self.moments / np.outer(factors, factors)).astype(np.float32)
        return ActivationStatistics(self.low / factors, self.high / factors, moments)


def measure_activations(source: Path, rows: EncodedRows) -> dict[str, ActivationStatistics]:
    """Run a plain fp32 file over calibration rows; returns statistics per input of a product.

    Rows run one at a time, so that no statistic includes padding.

    Args:
        rows: of the train split; dev and test are for measuring the result.

    Raises:
        ParityError: there are no rows, or an activation is not finite.
    """
    if not len(rows):
        raise ParityError("no calibration rows; pass rows of the train split")
    low: dict[str, Floats] = {}
    high: dict[str, Floats] = {}
    moments: dict[str, Floats] = {}
    tokens: dict[str, int] = {}
    for name, values in _activations(source, rows):
        if not np.isfinite(values).all():
            raise ParityError(f"{source}: {name} is not finite on the calibration rows")
        low[name] = np.minimum(low.get(name, np.inf), values.min(axis=0))
        high[name] = np.maximum(high.get(name, -np.inf), values.max(axis=0))
        moments[name] = moments.get(name, np.float32(0)) + values.T @ values
        tokens[name] = tokens.get(name, 0) + len(values)
    return {
        name: ActivationStatistics(low[name], high[name], moments[name] / np.float32(count))
        for name, count in tokens.items()
    }


def _activations(source: Path, rows: EncodedRows) -> Iterator[tuple[str, Floats]]:
    """Every input of a product for every row: its name and (tokens, width)."""
    import onnx

    model = onnx.load(source)
    names = list(dict.fromkeys(product.source for product in find_products(model.graph)))
    known = {value.name for value in model.graph.output}
    model.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in known
    )
    session = open_session(model.SerializeToString())
    inputs = [value.name for value in session.get_inputs()]
    for position in range(len(rows)):
        batch = rows.padded(np.array([position]))
        found = session.run(names, {name: getattr(batch, name) for name in inputs})
        for name, values in zip(names, found, strict=True):
            yield name, values.reshape(-1, values.shape[-1])
