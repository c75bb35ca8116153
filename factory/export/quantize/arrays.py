"""The arithmetic of quantization, on numpy arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
# 4-bit levels, -8..7, times -15..15 still fit in 8 bits, and times -7..7 in 7.
MULTIPLIERS = 15
SEVEN_BIT_MULTIPLIERS = 7


def quantize_columns(
    weight: Floats, largest: int, moments: Floats | None = None
) -> tuple[NDArray[np.int8], Floats]:
    """Signed integers up to `largest`, with one scale per column.

    Shapes:
        weight: (inputs, outputs)
        moments: (inputs, inputs), as in `compensated_rounding`; None rounds to nearest
        returns: integers (inputs, outputs), scales (outputs,)
    """
    scale = _positive(np.abs(weight).max(axis=0) / largest)
    levels = np.rint(weight / scale)
    if moments is not None:
        steps = np.broadcast_to(scale, weight.shape)
        levels = compensated_rounding(weight, steps, moments, -largest, largest)
    return levels.astype(np.int8), scale


def quantize_nibbles(
    weight: Floats, block_size: int, moments: Floats, seven_bits: bool = False
) -> tuple[NDArray[np.int8], NDArray[np.int8], Floats]:
    """4-bit levels whose product with a small whole number per block is an 8-bit weight.

    weight = level * multiplier * scale: blocks of inputs differ in size as with one float scale
    per block, yet the product runs with 8-bit integers and one scale per column.

    Args:
        moments: as in `compensated_rounding`.
        seven_bits: multipliers up to 7 instead of 15, so that the weight has 7 bits.

    Shapes:
        weight: (inputs, outputs)
        returns: levels -8..7 (inputs, outputs), multipliers without 0 (blocks, outputs),
            scales (outputs,)
    """
    largest = SEVEN_BIT_MULTIPLIERS if seven_bits else MULTIPLIERS
    _, wanted = quantize_blocks(np.ascontiguousarray(weight.T), block_size)
    sizes = np.abs(wanted.T)
    scale = _positive(sizes.max(axis=0) / largest)
    multipliers = np.clip(np.rint(sizes / scale), 1, largest) * np.sign(wanted.T)
    steps = np.repeat(multipliers, block_size, axis=0)[: len(weight)] * scale
    levels = compensated_rounding(weight, steps, moments, -8, 7)
    return levels.astype(np.int8), multipliers.astype(np.int8), scale


def compensated_rounding(
    weight: Floats, steps: Floats, moments: Floats, low: int, high: int
) -> Floats:
    """Round weight / steps so that the error of the product is small, not that of each weight.

    Inputs are rounded one after the other; the weights of correlated inputs that are not rounded
    yet compensate the error (GPTQ, arXiv 2210.17323, algorithm 1, with one percent of the mean
    moment added to the diagonal and the largest moments first).

    Shapes:
        weight, steps: (inputs, outputs)
        moments: (inputs, inputs), mean of x x^T over the calibration tokens
        returns: (inputs, outputs)
    """
    order = np.argsort(-np.diagonal(moments), kind="stable")
    damped = moments[np.ix_(order, order)].astype(np.float64)
    damped[np.diag_indices_from(damped)] += 0.01 * np.diagonal(damped).mean() + 1e-12
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T.astype(np.float32)
    left = weight[order]
    steps = steps[order]
    levels = np.empty_like(left)
    for position in range(len(left)):
        levels[position] = np.clip(np.rint(left[position] / steps[position]), low, high)
        error = (left[position] - levels[position] * steps[position]) / upper[position, position]
        left[position + 1 :] -= np.outer(upper[position, position + 1 :], error)
    result = np.empty_like(levels)
    result[order] = levels
    return result.astype(np.float32)


def quantize_blocks(rows: Floats, block_size: int) -> tuple[NDArray[np.uint8], Floats]:
    """Unsigned 4-bit integers around 8, with one scale per block of each row.

    Of several scales for a block, the one with the smallest squared error is used: with few levels,
    clipping the largest number can reduce the error of the others.

    Shapes:
        rows: (rows, width)
        returns: integers (rows, blocks, block_size), the last block filled up with zeros; scales
            (rows, blocks), any sign
    """
    count, width = rows.shape
    blocks = -(-width // block_size)
    padded = np.zeros((count, blocks * block_size), dtype=np.float32)
    padded[:, :width] = rows
    values = padded.reshape(count, blocks, block_size)
    # the number farthest from zero gets level -8, which has no positive counterpart
    farthest = np.take_along_axis(values, np.abs(values).argmax(axis=2)[..., None], axis=2)
    full = (farthest / -8).astype(np.float32)
    full[full == 0] = 1.0
    best, least = full, np.full(full.shape, np.inf, dtype=np.float32)
    for share in np.linspace(1.0, 0.7, 13, dtype=np.float32):
        scale = full * share
        levels = np.clip(np.rint(values / scale), -8, 7)
        error = np.square(levels * scale - values).sum(axis=2, keepdims=True)
        best = np.where(error < least, scale, best)
        least = np.minimum(error, least)
    unsigned = (np.clip(np.rint(values / best), -8, 7) + 8).astype(np.uint8)
    return unsigned, np.ascontiguousarray(best[..., 0], dtype=np.float32)


def block_values(levels: NDArray[np.uint8], scales: Floats, width: int) -> Floats:
    """The numbers that the result of `quantize_blocks` represents: (rows, width)."""
    values = (levels.astype(np.float32) - 8) * scales[..., None]
    return np.ascontiguousarray(values.reshape(len(levels), -1)[:, :width], dtype=np.float32)


def pack_nibbles(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two 4-bit numbers per byte along the last axis, the first in the low half.

    Shapes:
        levels: (..., even) -> (..., half)
    """
    low, high = levels[..., 0::2], levels[..., 1::2]
    return (low | (high << 4)).astype(np.uint8)


def asymmetric_scale(low: float, high: float) -> tuple[np.float32, np.uint8]:
    """Scale and zero point that map [low, high], widened to hold 0, to 0..255."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32((high - low) / 255) or np.float32(1)
    return scale, np.uint8(np.clip(round(-low / float(scale)), 0, 255))


def smoothing_factors(maxima: Floats, weights: list[Floats], strength: float) -> Floats:
    """Smoothing factors: each input channel is divided by its own, its weights multiplied by it.

    s_j = max|x_j|^strength / max|w_j|^(1 - strength) (SmoothQuant, arXiv 2211.10438, equation 4).

    Shapes:
        maxima: (inputs,), largest magnitude of each channel on the calibration rows
        weights: one (inputs, outputs) for each product that reads the activations
        returns: (inputs,)
    """
    largest = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
    floor = np.float32(1e-5)  # a channel that is always zero
    factors = np.maximum(maxima, floor) ** strength / np.maximum(largest, floor) ** (1 - strength)
    return np.asarray(factors, dtype=np.float32)


def _positive(scale: Floats) -> Floats:
    """The scale of a column, 1 for a column of zeros."""
    return np.where(scale > 0, scale, 1).astype(np.float32)
