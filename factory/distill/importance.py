"""How much each neuron or head of a student matters to the distillation loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from factory.distill.calibration import CALIBRATION_BATCH_SIZE
from factory.distill.prediction import TeacherLoss
from factory.models.classifier import forward_logits
from factory.models.encoding import EncodedRows, collate, sorted_batches


def neuron_importance(
    student: Any,
    rows: EncodedRows,
    teacher_logits: NDArray[np.float32],
    loss: TeacherLoss,
    device: str,
) -> NDArray[np.float64]:
    """Importance of each feed-forward neuron: (layers, neurons); see `taylor_importance`."""
    modules = [layer.intermediate for layer in student.bert.encoder.layer]
    count = student.config.intermediate_size
    return taylor_importance(student, modules, count, rows, teacher_logits, loss, device)


def taylor_importance(
    student: Any,
    modules: Sequence[nn.Module],
    units: int,
    rows: EncodedRows,
    teacher_logits: NDArray[np.float32],
    loss: TeacherLoss,
    device: str,
) -> NDArray[np.float64]:
    """By how much the loss of a row would change without a unit, to first order.

    The mean over rows of |a . dL/da|, where a is what the unit puts out for all tokens of the row
    (Michel et al., arXiv 1905.10650, equation 2; Molchanov et al., arXiv 1906.10771).

    Args:
        modules: each puts out (batch, tokens, width), or a tuple that begins so; its units are
            equal parts of the width, side by side.
        loss: mean over rows, see `teacher_loss`.

    Shapes:
        teacher_logits: (rows, labels)
        returns: (modules, units)
    """
    student.eval()
    seen: dict[int, Tensor] = {}
    handles = [_watch(seen, place, module) for place, module in enumerate(modules)]
    wanted = torch.from_numpy(teacher_logits).to(device)
    total = np.zeros((len(modules), units))
    try:
        for positions in sorted_batches(rows.lengths, CALIBRATION_BATCH_SIZE):
            batch = collate(rows, positions, device)
            mean = loss(forward_logits(student, batch), wanted[batch.rows], None)
            outputs = [seen[place] for place in range(len(modules))]
            # of the sum, so that each row's gradient is that of its own loss
            gradients = torch.autograd.grad(mean * len(positions), outputs)
            for place, (output, gradient) in enumerate(zip(outputs, gradients, strict=True)):
                product = (output * gradient).detach().double()
                of_unit = product.reshape(*product.shape[:2], units, -1).sum(dim=(1, 3))
                total[place] += of_unit.abs().sum(dim=0).cpu().numpy()
    finally:
        for handle in handles:
            handle.remove()
    return total / len(rows)


def _watch(seen: dict[int, Tensor], place: int, module: nn.Module) -> Any:
    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        seen[place] = output[0] if isinstance(output, tuple) else output

    return module.register_forward_hook(keep)
