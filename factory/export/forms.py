"""The forms of an exported student, as one table: one row per form.

A form is one ONNX file: the exported fp32 file, or a file written from it. To add a form,
name it in `FormName` and give it a row in `FORMS`. The measurements behind the numbers are in
docs/log.md.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from factory.data.dataset import Split
    from factory.export.quantize.activation_ranges import ActivationStatistics
    from factory.models.classifier import TorchClassifier
    from factory.models.encoding import EncodedRows

FormName = Literal[
    "fp32", "fp32-fused", "fp16", "int8-static", "int8-rows", "int8-embeddings", "int4"
]
Hardware = Literal["avx2", "avx512-vnni", "arm64", "cuda", "web"]
Facts = dict[str, Any]

CPUS: tuple[Hardware, ...] = ("avx2", "avx512-vnni", "arm64", "web")

# Where onnxruntime adds pairs of 8-bit products in 16 bits, which overflow: x86 without VNNI, and
# WebAssembly. With weights of 7 bits, no product overflows on any processor.
SEVEN_BIT_HARDWARE: tuple[Hardware, ...] = ("avx2", "web")


@dataclass(frozen=True)
class FormSource:
    """The inputs from which every form is written.

    Args:
        file: the plain fp32 export.
        student: its tokenizer encodes the calibration rows.
        train: source of the calibration rows; dev and test are for measuring.
        calibration_rows: number of rows, spread evenly over train.
        smoothing: strength of SmoothQuant in the static forms.
        seven_bits: whether 8-bit weights use 7 bits only.
    """

    file: Path
    student: TorchClassifier
    train: Split
    calibration_rows: int
    smoothing: float
    seven_bits: bool

    @cached_property
    def statistics(self) -> dict[str, ActivationStatistics]:
        """The activations' statistics on the calibration rows, measured once for all forms."""
        from factory.export.quantize.activation_ranges import measure_activations

        rows = calibration_rows(self.student, self.train, self.calibration_rows)
        return measure_activations(self.file, rows)


Write = Callable[[FormSource, Path], Facts]


@dataclass(frozen=True, slots=True)
class Form:
    """One form.

    Args:
        label: its name in tables for people.
        file: its name in a bundle, one that transformers.js, optimum and text-embeddings-inference
            look for.
        write: writes the file to a path and checks it; raises ParityError.
        hardware: kinds of machine on which `quantize.forms = "auto"` tries it.
        neighbour_independent: whether the result for a text is independent of the other texts in
            its batch; the server runs all other forms one text at a time.
    """

    name: FormName
    label: str
    file: str
    write: Write
    hardware: tuple[Hardware, ...] = ()
    neighbour_independent: bool = True


def _plain(source: FormSource, target: Path) -> Facts:
    shutil.copyfile(source.file, target)
    return {"size_bytes": target.stat().st_size}


def _fused(half: bool) -> Write:
    def write(source: FormSource, target: Path) -> Facts:
        from factory.export.fuse import write_fused

        return write_fused(source.file, target, source.student, half=half)

    return write


def _integer(activations: Literal["rows", "static"] | None, bits: Literal[4, 8] = 8) -> Write:
    def write(source: FormSource, target: Path) -> Facts:
        from factory.export.quantize.form import IntegerForm
        from factory.export.quantize.write import write_integer

        smoothing = source.smoothing if activations == "static" else 0.0
        form = IntegerForm(activations, bits, source.seven_bits, smoothing)
        statistics = {} if activations is None else source.statistics
        return write_integer(source.file, target, form, statistics)

    return write


_QUANTIZED = "onnx/model_quantized.onnx"
_ROWS = (
    Form("fp32", "ONNX fp32", "onnx/model.onnx", _plain, (*CPUS, "cuda")),
    Form(
        "fp32-fused",
        "ONNX fp32, fused operators",
        "onnx/model_optimized.onnx",
        _fused(half=False),
        ("cuda",),
    ),
    Form("fp16", "ONNX fp16", "onnx/model_fp16.onnx", _fused(half=True), ("cuda",)),
    Form("int8-static", "ONNX int8, static", _QUANTIZED, _integer("static"), CPUS),
    Form("int8-rows", "ONNX int8, per token", _QUANTIZED, _integer("rows"), CPUS),
    Form(
        "int8-embeddings",
        "ONNX int8 tables, products in float",
        _QUANTIZED,
        _integer(None),
        CPUS,
    ),
    Form("int4", "ONNX 4-bit weights", "onnx/model_q4.onnx", _integer("static", bits=4)),
)
FORMS: Mapping[FormName, Form] = {form.name: form for form in _ROWS}


def auto_forms(hardware: Hardware) -> tuple[FormName, ...]:
    """The forms that `quantize.forms = "auto"` tries on a kind of machine, in no order."""
    return tuple(form.name for form in FORMS.values() if hardware in form.hardware)


def write_forms(directory: Path, names: Sequence[FormName], source: FormSource) -> Facts:
    """Write `NAME.onnx` for each form; returns the facts per form.

    Raises:
        ParityError: a written file fails its check.
    """
    return {name: FORMS[name].write(source, directory / f"{name}.onnx") for name in names}


def calibration_rows(student: TorchClassifier, train: Split, count: int) -> EncodedRows:
    """Rows spread evenly over the training split, encoded for the student."""
    import numpy as np

    from factory.models.encoding import encode_inputs

    inputs = train.inputs()
    chosen = np.linspace(0, len(inputs) - 1, min(count, len(inputs))).astype(int)
    return encode_inputs(student.tokenizer, [inputs[n] for n in chosen], student.max_length)
