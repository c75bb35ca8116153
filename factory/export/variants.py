"""The forms of an exported student, one file each, by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from factory.classifier import TorchClassifier
from factory.data.dataset import Split
from factory.export.quantize import quantize_int8
from factory.recipe_shipping import QuantizeSettings, VariantName


def write_variants(
    directory: Path,
    source: Path,
    names: Sequence[VariantName],
    settings: QuantizeSettings,
    student: TorchClassifier,
    train: Split,
) -> dict[str, Any]:
    """Write `NAME.onnx` for each variant, from the plain fp32 file.

    Args:
        student: whose tokenizer reads the calibration rows.
        train: where the calibration rows come from; dev and test measure.

    Raises:
        ParityError: a file is not what its name says.
    """
    facts: dict[str, Any] = {}
    for name in names:
        facts[name] = quantize_int8(source, directory / f"{name}.onnx", settings.per_channel)
    return facts
