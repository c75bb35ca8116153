"""A student start derived from the teacher's weights, with no download and no corpus.

The residual coordinates that carry most are kept, each head's query-key and value-output products
are cut to the student's head width by an activation-weighted SVD, and the strongest feed-forward
neurons stay. `factory.distill.head_plan` says which head becomes which where their numbers differ.
Ideas: weight subcloning (arXiv 2312.09299), HomoDistil (arXiv 2302.09632).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from factory.classifier import TorchClassifier
from factory.distill.head_plan import HeadSource, plan_heads
from factory.encoding import EncodedRows, collate, sorted_batches
from factory.errors import RecipeError

CALIBRATION_BATCH_SIZE = 32
# Added to the diagonal of second moments, relative to their mean diagonal, so that directions the
# calibration rows never use do not blow up a solution.
RIDGE = 1e-4


@dataclass(frozen=True, slots=True)
class _Moments:
    """Second moments of teacher activations over real calibration tokens.

    Shapes:
        hidden[layer]: (hidden + 1, hidden + 1) of layer's output with a 1 appended; 0 is embeddings
        neurons[layer]: (intermediate, intermediate) of the activated feed-forward layer
        pooled: (hidden,) root mean square of the pooler's output
    """

    hidden: dict[int, Tensor]
    neurons: dict[int, Tensor]
    pooled: Tensor


@torch.no_grad()
def derive_student(
    student: Any,
    projections: nn.ModuleList,
    teacher: TorchClassifier,
    layer_map: tuple[int, ...],
    calibration: EncodedRows,
) -> None:
    """Overwrite the student's weights and width projections with ones taken from the teacher.

    Raises:
        RecipeError: the student is wider than the teacher.
    """
    source = teacher.model.config
    _check_shapes(student.config, source)
    moments = _collect_moments(teacher, layer_map, calibration)
    kept = _strongest_coordinates(moments, student.config.hidden_size)
    teacher_bert = teacher.model.bert
    _copy_embeddings(student.bert.embeddings, teacher_bert.embeddings, kept)
    for position, layer in enumerate(layer_map):
        block = teacher_bert.encoder.layer[layer - 1]
        target = student.bert.encoder.layer[position]
        rows = torch.cat([kept, torch.tensor([source.hidden_size])])
        inputs = moments.hidden[layer - 1][rows][:, rows]
        plan = _plan_layer(student.config.num_attention_heads, block.attention, kept, inputs)
        _factorize_scores(target.attention.self, block.attention.self, kept, inputs, plan)
        _factorize_values(target.attention, block.attention, kept, inputs, plan)
        _copy_norm(target.attention.output.LayerNorm, block.attention.output.LayerNorm, kept)
        _select_neurons(target, block, kept, moments.neurons[layer])
        _copy_norm(target.output.LayerNorm, block.output.LayerNorm, kept)
    _copy_head(student, teacher.model, kept, moments.pooled)
    for projection, layer in zip(projections, (0, *layer_map), strict=True):
        _fit_projection(projection, moments.hidden[layer], kept)


def _check_shapes(student: Any, teacher: Any) -> None:
    problems = []
    for name in ("hidden_size", "intermediate_size"):
        if getattr(student, name) > getattr(teacher, name):
            problems.append(
                f"the student's {name} {getattr(student, name)} is larger than the teacher's "
                f"{getattr(teacher, name)}"
            )
    if problems:
        raise RecipeError('student.start = "teacher" (choose "random" or a checkpoint)', problems)


def _collect_moments(
    teacher: TorchClassifier, layer_map: tuple[int, ...], rows: EncodedRows
) -> _Moments:
    bert = teacher.model.bert
    needed = {0, *layer_map, *(layer - 1 for layer in layer_map)}
    hidden: dict[int, Tensor] = {}
    neurons: dict[int, Tensor] = {}
    pooled = torch.zeros(teacher.model.config.hidden_size, dtype=torch.float64)
    activated: dict[int, Tensor] = {}
    handles = [
        bert.encoder.layer[layer - 1].intermediate.register_forward_hook(
            lambda _module, _inputs, output, layer=layer: activated.__setitem__(layer, output)
        )
        for layer in set(layer_map)
    ]
    teacher.model.eval()
    for positions in sorted_batches(rows.lengths, CALIBRATION_BATCH_SIZE):
        batch = collate(rows, positions, teacher.device)
        output = bert(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            token_type_ids=batch.token_type_ids,
            output_hidden_states=True,
        )
        real = batch.attention_mask.bool()
        for layer in needed:
            states = output.hidden_states[layer][real].float().cpu()
            states = torch.cat([states, torch.ones(len(states), 1)], dim=1)
            _add_moment(hidden, layer, states)
        for layer, states in activated.items():
            _add_moment(neurons, layer, states[real].float().cpu())
        pooled += output.pooler_output.double().square().sum(dim=0).cpu()
    for handle in handles:
        handle.remove()
    return _Moments(hidden, neurons, (pooled / len(rows)).sqrt().float())


def _add_moment(moments: dict[int, Tensor], layer: int, states: Tensor) -> None:
    moment = (states.T @ states).double()
    moments[layer] = moments[layer] + moment if layer in moments else moment


def _strongest_coordinates(moments: _Moments, count: int) -> Tensor:
    """The residual coordinates with the largest standard deviation plus absolute mean."""
    strength = torch.zeros(next(iter(moments.hidden.values())).shape[0] - 1, dtype=torch.float64)
    for moment in moments.hidden.values():
        rows = moment[-1, -1]
        mean = moment[-1, :-1] / rows
        deviation = (moment.diagonal()[:-1] / rows - mean.square()).clamp_min(0).sqrt()
        strength += deviation + mean.abs()
    kept: Tensor = strength.topk(count).indices.sort().values
    return kept


def _copy_embeddings(target: Any, source: Any, kept: Tensor) -> None:
    for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
        weight = getattr(source, name).weight.cpu()
        getattr(target, name).weight.copy_(weight[:, kept])
    _copy_norm(target.LayerNorm, source.LayerNorm, kept)


def _copy_norm(target: nn.LayerNorm, source: nn.LayerNorm, kept: Tensor) -> None:
    target.weight.copy_(source.weight.cpu()[kept])
    target.bias.copy_(source.bias.cpu()[kept])


def _root(moment: Tensor) -> Tensor:
    """A square root R with R^T R equal to the (ridged) second moment."""
    ridge = RIDGE * moment.diagonal().mean()
    eye = torch.eye(len(moment), dtype=moment.dtype)
    root: Tensor = torch.linalg.cholesky(moment + ridge * eye).T
    return root


def _plan_layer(
    student_heads: int, attention: Any, kept: Tensor, inputs: Tensor
) -> list[HeadSource]:
    """Which teacher heads each of the student's starts from, judged on the kept inputs."""
    root = _root(inputs)
    query, key, value = (
        (root @ _with_bias(linear, kept).T).T
        for linear in (attention.self.query, attention.self.key, attention.self.value)
    )
    output = attention.output.dense.weight.cpu().double()[kept]
    return plan_heads(query, key, value, output, attention.self.num_attention_heads, student_heads)


def _factorize_scores(
    target: Any, source: Any, kept: Tensor, inputs: Tensor, plan: list[HeadSource]
) -> None:
    """Best low-rank query and key for each head's attention scores on the layer's inputs.

    With x the kept inputs and a 1, the teacher's scores are x A B^T x' / sqrt(d); the student
    divides by its own sqrt(d), hence the factor. R = root of E[x x^T]; the SVD of R A B^T R^T is
    taken through the small QR factors of R A and R B; their pseudo-inverses also serve heads wider
    than the student's whole state, and pruned ones.
    """
    root = _root(inputs)
    width, target_width = source.attention_head_size, target.attention_head_size
    scale = (target_width / width) ** 0.5
    query, key = _with_bias(source.query, kept), _with_bias(source.key, kept)
    _clear(target.query, target.key)
    for head, planned in enumerate(plan):
        rows = slice(planned.scores * width, (planned.scores + 1) * width)
        left, right = query[rows].T, key[rows].T
        small_left = torch.linalg.qr(root @ left).R
        small_right = torch.linalg.qr(root @ right).R
        u, s, vh = torch.linalg.svd(small_left @ small_right.T * scale)
        rank = min(target_width, width)
        power = s[:rank].sqrt()
        new_left = left @ torch.linalg.pinv(small_left) @ (u[:, :rank] * power)
        new_right = right @ torch.linalg.pinv(small_right) @ (vh[:rank].T * power)
        _put_rows(target.query, head * target_width, new_left.T)
        _put_rows(target.key, head * target_width, new_right.T)


def _factorize_values(
    target: Any, source: Any, kept: Tensor, inputs: Tensor, plan: list[HeadSource]
) -> None:
    """Best low-rank value and output for each head's contribution to the residual stream.

    Teacher heads that one student head stands for attend alike by choice, so their contributions
    add up under one attention; student heads that share a teacher head take turns at the singular
    directions of its contribution.
    """
    root = _root(inputs)
    width, target_width = source.self.attention_head_size, target.self.attention_head_size
    value = _with_bias(source.self.value, kept)
    output = source.output.dense.weight.cpu().double()[kept]
    _clear(target.self.value, target.output.dense)
    for head, planned in enumerate(plan):
        rows = torch.cat([torch.arange(one * width, (one + 1) * width) for one in planned.values])
        small_value = torch.linalg.qr(root @ value[rows].T).R
        small_output = torch.linalg.qr(output[:, rows]).R
        u, s, vh = torch.linalg.svd(small_output @ small_value.T)
        chosen = torch.arange(len(s))[planned.part :: planned.parts][:target_width]
        power = s[chosen].sqrt()
        new_output = output[:, rows] @ torch.linalg.pinv(small_output) @ (u[:, chosen] * power)
        new_value = value[rows].T @ torch.linalg.pinv(small_value) @ (vh[chosen].T * power)
        _put_rows(target.self.value, head * target_width, new_value.T)
        start = head * target_width
        target.output.dense.weight[:, start : start + len(chosen)] = new_output.float()
    target.output.dense.bias.copy_(source.output.dense.bias.cpu()[kept])


def _with_bias(linear: nn.Linear, kept: Tensor) -> Tensor:
    """Weight on the kept inputs with the bias as last column: (outputs, kept + 1), float64."""
    weight = linear.weight.cpu().double()[:, kept]
    return torch.cat([weight, linear.bias.cpu().double().unsqueeze(1)], dim=1)


def _clear(*layers: nn.Linear) -> None:
    """Zero weight and bias: what a head wider than the teacher's does not fill stays silent."""
    for layer in layers:
        layer.weight.zero_()
        layer.bias.zero_()


def _put_rows(linear: nn.Linear, start: int, rows: Tensor) -> None:
    """Write rows of weight and bias."""
    end = start + len(rows)
    linear.weight[start:end] = rows[:, :-1].float()
    linear.bias[start:end] = rows[:, -1].float()


def _select_neurons(target: Any, source: Any, kept: Tensor, moment: Tensor) -> None:
    """Keep the neurons that move the residual stream most; refit their output weights.

    The refit is the least-squares solution that lets the kept neurons stand in for the dropped
    ones on the calibration rows.
    """
    weight_in, bias_in = (
        source.intermediate.dense.weight.cpu(),
        source.intermediate.dense.bias.cpu(),
    )
    weight_out = source.output.dense.weight.cpu()[kept].double()
    count = target.intermediate.dense.out_features
    strength = moment.diagonal().sqrt() * weight_out.norm(dim=0)
    chosen = strength.topk(count).indices.sort().values
    target.intermediate.dense.weight.copy_(weight_in[chosen][:, kept])
    target.intermediate.dense.bias.copy_(bias_in[chosen])
    square = moment[chosen][:, chosen]
    square = square + RIDGE * square.diagonal().mean() * torch.eye(count, dtype=square.dtype)
    refit = torch.linalg.solve(square, moment[chosen] @ weight_out.T).T
    target.output.dense.weight.copy_(refit.float())
    target.output.dense.bias.copy_(source.output.dense.bias.cpu()[kept])


def _copy_head(student: Any, teacher: Any, kept: Tensor, pooled: Tensor) -> None:
    """Pooler and classifier on the pooled coordinates that move the logits most."""
    classifier = teacher.classifier.weight.cpu()
    strength = pooled * classifier.norm(dim=0)
    chosen = strength.topk(student.config.hidden_size).indices.sort().values
    pooler = teacher.bert.pooler.dense
    student.bert.pooler.dense.weight.copy_(pooler.weight.cpu()[chosen][:, kept])
    student.bert.pooler.dense.bias.copy_(pooler.bias.cpu()[chosen])
    student.classifier.weight.copy_(classifier[:, chosen])
    student.classifier.bias.copy_(teacher.classifier.bias.cpu())


def _fit_projection(projection: nn.Module, moment: Tensor, kept: Tensor) -> None:
    """Least-squares map from the kept coordinates to the teacher's whole hidden state."""
    rows = torch.cat([kept, torch.tensor([len(moment) - 1])])
    square = moment[rows][:, rows]
    ridge = RIDGE * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype)
    solution = torch.linalg.solve(square + ridge, moment[rows][:, :-1])
    assert isinstance(projection, nn.Linear)
    projection.weight.copy_(solution[:-1].T.float())
    projection.bias.copy_(solution[-1].float())
