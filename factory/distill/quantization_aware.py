"""Training a student while it computes with the rounded numbers that its integer form will hold."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from factory.distill.lesson import Lesson, learn_logits
from factory.distill.loss_log import summary
from factory.distill.phase import Phase, total_steps
from factory.distill.saving import save_student
from factory.distill.vocabulary import used_vocabulary
from factory.errors import ParityError
from factory.export.first_token import FirstTokenLayer, shorten_last_layer
from factory.export.quantize.arrays import asymmetric_scale
from factory.export.quantize.calibration import ActivationRanges
from factory.export.quantize.form import IntegerForm, find_products
from factory.export.quantize.nodes import SMALLEST_ROW
from factory.export.quantize.write import activations_of, smoothing_of, why_float

ROW_LEVELS = 127


@dataclass(frozen=True, slots=True)
class Rounding:
    """How one product of a student is rounded.

    Args:
        largest: integer of a weight; symmetric, one scale per output channel.
        step, zero: of the input, with 256 levels; None scales each token by its own largest number.

    Shapes:
        factors: (inputs,), what the input's channels are divided by and the weights multiplied with
    """

    factors: NDArray[np.float32]
    largest: int
    step: float | None
    zero: int


def train_rounded(
    directory: Path,
    model_directory: Path,
    roundings: Mapping[str, Rounding],
    lesson: Lesson,
    phase: Phase,
    temperature: float,
    first_token: bool = True,
) -> dict[str, Any]:
    """Train a saved student on the teacher's logits as its integer form computes, and save it.

    Weights and the inputs of products are rounded on the way forward; gradients pass the rounding
    as if it were not there, but stop where a range is left (straight-through estimator, Bengio et
    al., arXiv 1308.3432; Jacob et al., arXiv 1712.05877). What is saved has float weights again.
    Embedding tables are not rounded.

    Args:
        directory: where the student goes; the checkpoint of an interrupted run is found there.
        roundings: see `roundings_of`.
        first_token: as the student will be exported (`export.first_token`).

    Returns:
        Steps, and first and last loss.
    """
    from transformers import AutoTokenizer, BertForSequenceClassification

    student: Any = BertForSequenceClassification.from_pretrained(
        model_directory,
        attn_implementation="eager",  # whose mask a shortened layer reads
    ).to(lesson.teacher.device)
    checkpoint = directory / "rounded.checkpoint"
    with (
        _as_exported(student, first_token),
        rounded(student, roundings),
        used_vocabulary(lesson.transfer.rows, student.bert) as rows,
    ):
        points, _ = learn_logits(phase, student, lesson, rows, temperature, checkpoint)
    save_student(directory, student, AutoTokenizer.from_pretrained(model_directory), points)
    return {"steps": total_steps(phase, len(lesson.learned)), "losses": summary(points)}


def roundings_of(
    source: Path, form: IntegerForm, ranges: ActivationRanges | None
) -> dict[str, Rounding]:
    """How an integer form rounds each product of an exported student, by the module's name.

    Args:
        source: the student's plain fp32 file.
        ranges: of its activations on calibration rows; static forms need them.

    Raises:
        ParityError: a form whose arithmetic is not known here: 4-bit weights, or activations
            scaled over the batch or by blocks.
    """
    import onnx

    if form.weight_bits != 8 or form.activations in ("dynamic", "blocks"):
        raise ParityError(
            f"training with rounded numbers knows 8-bit weights with static activations or rows, "
            f"not {form.weight_bits}-bit weights with {form.activations} ones"
        )
    if form.needs_calibration and ranges is None:
        raise ParityError(f"{form} needs the ranges of activations; calibrate on train rows first")
    products = [
        product
        for product in find_products(onnx.load(source).graph)
        if why_float(product, form) is None
    ]
    factors = smoothing_of(products, form, ranges)
    found = {}
    for product in products:
        divided = factors.get(product.source)
        step, zero = None, 0
        if activations_of(product, form) == "static":
            assert ranges is not None, "needs_calibration"
            low, high = ranges.ranges[product.source]
            if divided is not None:
                low, high = ranges.divided(product.source, divided)
            scale, middle = asymmetric_scale(low, high)
            step, zero = float(scale), int(middle)
        ones = np.ones(product.weight.shape[0], dtype=np.float32)
        found[_module_name(product.name)] = Rounding(
            ones if divided is None else divided, 63 if form.reduced_range else 127, step, zero
        )
    return found


@contextlib.contextmanager
def rounded(student: nn.Module, roundings: Mapping[str, Rounding]) -> Iterator[None]:
    """Let a student compute with rounded weights and inputs; float weights are trained below them.

    Args:
        roundings: by the name of an `nn.Linear` of the student.
    """
    handles = []
    linears = [student.get_submodule(name) for name in roundings]
    try:
        for linear, rounding in zip(linears, roundings.values(), strict=True):
            weight = linear.get_parameter("weight")
            factors = torch.from_numpy(rounding.factors).to(weight.device)
            parametrize.register_parametrization(
                linear, "weight", _RoundedWeight(factors, rounding.largest)
            )
            handles.append(linear.register_forward_pre_hook(_rounds_input(rounding, factors)))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for linear in linears:
            if parametrize.is_parametrized(linear, "weight"):
                parametrize.remove_parametrizations(linear, "weight", leave_parametrized=False)


class _RoundedWeight(nn.Module):
    """Weights on the grid of their output channel."""

    factors: Tensor

    def __init__(self, factors: Tensor, largest: int) -> None:
        super().__init__()
        self.register_buffer("factors", factors, persistent=False)
        self.largest = largest

    def forward(self, weight: Tensor) -> Tensor:
        """(outputs, inputs) -> the same."""
        smoothed = weight * self.factors
        steps = smoothed.detach().abs().amax(dim=1) / self.largest
        steps = torch.where(steps > 0, steps, torch.ones_like(steps))
        zeros = torch.zeros_like(steps, dtype=torch.int32)
        levels = torch.fake_quantize_per_channel_affine(
            smoothed, steps, zeros, 0, -self.largest, self.largest
        )
        return levels / self.factors


def _rounds_input(rounding: Rounding, factors: Tensor) -> Any:
    def before(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        smooth = inputs[0].float() / factors
        if rounding.step is None:
            largest = smooth.detach().abs().amax(dim=-1, keepdim=True).clamp_min(SMALLEST_ROW)
            step = largest / ROW_LEVELS
            levels = smooth + (torch.round(smooth / step) * step - smooth).detach()
        else:
            levels = torch.fake_quantize_per_tensor_affine(
                smooth, rounding.step, rounding.zero, 0, 255
            )
        return (levels * factors, *inputs[1:])

    return before


@contextlib.contextmanager
def _as_exported(student: Any, first_token: bool) -> Iterator[None]:
    """The products that the exported file will have; what they learned goes back into the layer."""
    layers = student.bert.encoder.layer
    whole = layers[-1]
    if first_token:
        shorten_last_layer(student)
    try:
        yield
    finally:
        short = layers[-1]
        if isinstance(short, FirstTokenLayer):
            key = whole.attention.self.key.weight
            with torch.no_grad():
                key.copy_(short.key_transposed.weight.t() * math.sqrt(short.head_size))
            layers[-1] = whole


def _module_name(node: str) -> str:
    """`/bert/pooler/dense/Gemm` is the product of the module `bert.pooler.dense`."""
    return node.strip("/").rpartition("/")[0].replace("/", ".")
