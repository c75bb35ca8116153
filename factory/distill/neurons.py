"""Removing feed-forward neurons from a BERT for good: smaller matrices, a plain configuration."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from factory.distill.calibration import Side, nearest_fit, states_of
from factory.models.encoding import EncodedRows

# As in the derived start (docs/log.md); from 1e-4 to 1e-2 the students differ by nothing.
REFIT_RIDGE = 1e-2


def strongest(importance: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Positions of the `count` largest numbers of each row, ascending: (rows, count).

    Of equal numbers those that come first win.
    """
    order = np.argsort(-importance, axis=1, kind="stable")[:, :count]
    return np.sort(order, axis=1)


def keep_neurons(student: Any, kept: NDArray[np.int64], rows: EncodedRows, device: str) -> None:
    """Remove all other neurons; those kept stand in for them as well as they can.

    Every layer keeps equally many, so that `intermediate_size` of a plain `BertConfig` says it.
    From the first layer to the last, the output weights are refitted by least squares to what the
    whole layer made of the states that the layers before it put out by then; the old weights are
    the prior. What a removed neuron has in common with the others is not lost that way.

    Shapes:
        kept: (layers, neurons kept), positions
    """
    for number, layer in enumerate(student.bert.encoder.layer):
        output = layer.output.dense
        points: dict[str, tuple[nn.Module, Side]] = {
            "neurons": (output, "input"),
            "sums": (output, "output"),
        }
        states = states_of(student.bert, points, rows, device)
        _shrink(layer, torch.from_numpy(kept[number]), states["neurons"], states["sums"])
    student.config.intermediate_size = kept.shape[1]


@torch.no_grad()
def _shrink(layer: Any, kept: Tensor, neurons: Tensor, sums: Tensor) -> None:
    """Cut both matrices of a layer.

    Shapes:
        neurons: (tokens, neurons), what enters the second matrix
        sums: (tokens, hidden), what it makes of them
    """
    first, second = layer.intermediate.dense, layer.output.dense
    place = kept.to(first.weight.device)
    prior = torch.cat([second.weight[:, place], second.bias[:, None]], dim=1).cpu().double()
    fitted = nearest_fit(neurons[:, kept], sums, prior, REFIT_RIDGE).to(second.weight)
    layer.intermediate.dense = _linear(first.weight[place], first.bias[place])
    layer.output.dense = _linear(fitted[:, :-1], fitted[:, -1])


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device)
    linear.weight = nn.Parameter(weight.contiguous())
    linear.bias = nn.Parameter(bias.contiguous())
    return linear
