"""Prune a distilled student: remove its least important neurons, then train it to recover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from factory.data.dataset import Split
from factory.distill.activations import (
    CALIBRATION_BATCH_SIZE,
    Side,
    forward_hooks,
    nearest_fit,
    states_of,
)
from factory.distill.losses import TeacherLoss, teacher_loss
from factory.distill.student import first_tokens, save_student
from factory.distill.tinybert import train_on_logits
from factory.distill.transfer_set import (
    LOGITS_FILE,
    AugmentedRows,
    DistillationData,
    Inputs,
    load_data,
    prediction_phase,
)
from factory.models.classifier import TorchClassifier, forward_logits
from factory.models.encoding import EncodedRows, collate, select_rows, sorted_batches
from factory.recipe.training import DistillSettings, PruneSettings
from factory.runtime import distributed
from factory.runtime.progress import say
from factory.training.embedding_subset import embedding_subset
from factory.training.loss_log import summary
from factory.training.trainer import total_steps

# As in the derived start (docs/log.md); from 1e-4 to 1e-2 the students do not differ.
REFIT_RIDGE = 1e-2


def prune(
    output: Path,
    distilled: Path,
    student: TorchClassifier,
    teacher: TorchClassifier,
    labelled: Split,
    settings: PruneSettings,
    distill_settings: DistillSettings,
    augmented: AugmentedRows | None = None,
    unlabelled: Inputs | None = None,
) -> dict[str, Any]:
    """Remove feed-forward neurons of a distilled student, train it again, and save it.

    Importance is measured on rows that the student was trained on, against the teacher's logits;
    dev and test are not used.

    Args:
        output: the pruned student's directory; an interrupted run resumes from its checkpoint.
        distilled: the distilled student's directory, with the teacher's logits if they still exist.
        student: the distilled student; it is changed.
        distill_settings: how it was distilled; the recovery uses the same rows.
    """
    cached = distributed.on_main_process((distilled / LOGITS_FILE).is_file)
    data = load_data(
        distilled if cached else output,
        teacher,
        student.tokenizer,
        labelled,
        distill_settings,
        augmented,
        unlabelled,
    )
    model, temperature = student.model, distill_settings.prediction.temperature
    before = {"neurons": model.config.intermediate_size, "parameters": _size(model)}
    importance_kept = _remove(model, data, settings, distill_settings)
    phase = replace(  # the prediction phase again, with other epochs and learning rate
        prediction_phase(distill_settings),
        name="recovery",
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
    )
    with embedding_subset(data.transfer.rows, model):
        points, loss = train_on_logits(
            phase, model, data, temperature, output / "recovery.checkpoint"
        )
    save_student(output, model, student.tokenizer, points)
    say(f"{before['neurons']} neurons per layer -> {settings.neurons}")
    return {
        "before": before,
        "neurons": settings.neurons,
        "parameters": _size(model),
        "importance_kept": importance_kept,
        "rows": len(data.train),
        "steps": total_steps(phase, len(data.train)),
        "losses": summary(points),
        "held_out": data.held_out_facts({"loss": loss}),
    }


def _remove(
    student: Any, data: DistillationData, settings: PruneSettings, distill_settings: DistillSettings
) -> list[float]:
    """Remove neurons; returns the share of each layer's importance that is left."""
    device = data.teacher.device
    draw = np.random.default_rng([distill_settings.seed, len(data.train)])
    chosen = draw.permutation(data.train)[: settings.calibration_rows]
    rows = select_rows(data.transfer.rows, chosen)
    loss = teacher_loss(student, distill_settings.prediction.temperature)
    # on one rank: the last digits may differ between ranks
    importance = distributed.on_main_process(
        lambda: neuron_importance(student, rows, data.teacher_logits[chosen], loss, device)
    )
    kept = strongest(importance, settings.neurons)
    keep_neurons(student, kept, first_tokens(rows), device)
    whole = np.maximum(importance.sum(axis=1), np.finfo(np.float64).tiny)
    shares = np.take_along_axis(importance, kept, axis=1).sum(axis=1) / whole
    return [round(float(share), 4) for share in shares]


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
    """How much the loss of a row would change without a unit, to first order.

    The mean over rows of |a . dL/da|, where a is the unit's output for all tokens of the row
    (Michel et al., arXiv 1905.10650, equation 2; Molchanov et al., arXiv 1906.10771).

    Args:
        modules: the output of each is (batch, tokens, width), or a tuple that starts with it; its
            units are equal, adjacent parts of the width.
        loss: per row, see `teacher_loss`.

    Shapes:
        teacher_logits: (rows, labels)
        returns: (modules, units)
    """
    student.eval()
    points: dict[str, tuple[nn.Module, Side]] = {
        str(place): (module, "output") for place, module in enumerate(modules)
    }
    wanted = torch.from_numpy(teacher_logits).to(device)
    total = np.zeros((len(modules), units))
    with forward_hooks(points) as seen:
        for positions in sorted_batches(rows.lengths, CALIBRATION_BATCH_SIZE):
            batch = collate(rows, positions, device)
            per_row = loss(forward_logits(student, batch), wanted[batch.rows])
            outputs = [seen[name] for name in points]
            # of the sum, so that each row's gradient is that of its own loss
            gradients = torch.autograd.grad(per_row.sum(), outputs)
            for place, (values, gradient) in enumerate(zip(outputs, gradients, strict=True)):
                product = (values * gradient).detach().double()
                of_unit = product.reshape(*product.shape[:2], units, -1).sum(dim=(1, 3))
                total[place] += of_unit.abs().sum(dim=0).cpu().numpy()
    return total / len(rows)


def strongest(importance: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Positions of the `count` largest numbers of each row, ascending; ties: the first ones."""
    order = np.argsort(-importance, axis=1, kind="stable")[:, :count]
    return np.sort(order, axis=1)


def keep_neurons(student: Any, kept: NDArray[np.int64], rows: EncodedRows, device: str) -> None:
    """Remove all other neurons and refit the output weights of those kept.

    Every layer keeps the same number, as a `BertConfig` has one `intermediate_size`. From the first
    layer to the last, the output weights are refitted by least squares to the output of the whole
    layer on the states that the pruned layers before it produce; the old weights are the prior.

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
        neurons: (tokens, neurons), input of the second matrix
        sums: (tokens, hidden), its output
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


def _size(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
