"""A student start derived from the teacher's weights, with no download and no corpus.

The student is built layer by layer, from the embeddings up. It keeps the strongest coordinates of
the residual stream. Weights that read the residual stream are composed with the best linear
estimate of the teacher's state from the student's state at that place, which includes the errors of
the layers below. Each head's query-key and value-output products are cut to the student's head
width by an activation-weighted SVD, the strongest feed-forward neurons are kept, and weights that
write to the residual stream are refitted to the teacher's by least squares. Ideas: weight
subcloning (arXiv 2312.09299), HomoDistil (arXiv 2302.09632).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from factory.distill.activations import Side, cut_after, nearest_fit, states_of, with_one
from factory.distill.head_plan import HeadSource, plan_heads
from factory.errors import RecipeError
from factory.models.classifier import TorchClassifier
from factory.models.encoding import EncodedRows

# Added to the diagonal of second moments, relative to their mean diagonal: bounds the solution in
# directions that the calibration rows do not use.
RIDGE = 1e-4
# Ridge that pulls a refitted layer towards its initial weights; other values: docs/log.md.
REFIT_RIDGE = 1e-2


@torch.no_grad()
def derive_student(
    student: Any,
    projections: nn.ModuleList,
    teacher: TorchClassifier,
    layer_map: tuple[int, ...],
    calibration: EncodedRows,
) -> None:
    """Overwrite the student's weights and width projections with ones derived from the teacher.

    Raises:
        RecipeError: the student is wider than the teacher.
    """
    _check_shapes(student.config, teacher.model.config)
    teacher_bert, student_bert = teacher.model.bert, student.bert
    teacher.model.eval()
    kept = _strongest_coordinates(teacher, layer_map, student.config.hidden_size, calibration)
    _copy_embeddings(student_bert.embeddings, teacher_bert.embeddings, kept)
    states, wanted = (
        states_of(bert, {"output": (bert.embeddings, "output")}, calibration, device)["output"]
        for bert, device in ((student_bert, "cpu"), (teacher_bert, teacher.device))
    )
    _put(projections[0], _fold(states, wanted, kept)[:-1])
    for position, layer in enumerate(layer_map):
        block = student_bert.encoder.layer[position]
        source = teacher_bert.encoder.layer[layer - 1]
        with cut_after(teacher_bert, layer):
            theirs = _teacher_states(teacher, source, calibration)
        with cut_after(student_bert, position + 1):
            states = _derive_attention(
                student_bert, block, source, states, theirs, kept, calibration
            )
        states = _derive_neurons(block, source, states, theirs, kept)
        wanted = theirs["output"]
        _put(projections[position + 1], _fold(states, wanted, kept)[:-1])
    _derive_head(student, teacher, _fold(states, wanted, kept), calibration)


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


def _strongest_coordinates(
    teacher: TorchClassifier, layer_map: tuple[int, ...], count: int, rows: EncodedRows
) -> Tensor:
    """The residual coordinates with the largest standard deviation plus absolute mean.

    Summed over the embedding output and the inputs and outputs of the mapped layers.
    """
    bert = teacher.model.bert
    layers = sorted({*layer_map, *(layer - 1 for layer in layer_map)} - {0})
    modules = [bert.embeddings, *(bert.encoder.layer[layer - 1] for layer in layers)]
    points: dict[str, tuple[nn.Module, Side]] = {
        str(place): (module, "output") for place, module in enumerate(modules)
    }
    with cut_after(bert, max(layers)):
        found = states_of(bert, points, rows, teacher.device).values()
    strength = torch.stack(
        [states.std(dim=0, correction=0) + states.mean(dim=0).abs() for states in found]
    )
    kept: Tensor = strength.double().sum(dim=0).topk(count).indices.sort().values
    return kept


def _teacher_states(teacher: TorchClassifier, block: Any, rows: EncodedRows) -> dict[str, Tensor]:
    """The states of one teacher layer that the student's layer is fitted to."""
    return states_of(
        teacher.model.bert,
        {
            "input": (block, "input"),
            "attention sum": (block.attention.output.LayerNorm, "input"),
            "attention": (block.attention, "output"),
            "neurons": (block.intermediate, "output"),
            "sum": (block.output.LayerNorm, "input"),
            "output": (block, "output"),
        },
        rows,
        teacher.device,
    )


def _fold(states: Tensor, wanted: Tensor, kept: Tensor) -> Tensor:
    """The best linear estimate of the teacher's states from the student's.

    Shapes:
        states: (tokens, hidden); wanted: (tokens, teacher hidden)
        returns: (teacher hidden + 1, hidden + 1); maps an appended 1 to an appended 1
    """
    prior = torch.zeros(wanted.shape[1], states.shape[1] + 1, dtype=torch.float64)
    prior[kept, torch.arange(len(kept))] = 1.0
    constant = torch.zeros(1, states.shape[1] + 1, dtype=torch.float64)
    constant[0, -1] = 1.0
    return torch.cat([nearest_fit(states, wanted, prior, RIDGE), constant])


def _derive_attention(
    bert: Any,
    block: Any,
    source: Any,
    states: Tensor,
    theirs: dict[str, Tensor],
    kept: Tensor,
    rows: EncodedRows,
) -> Tensor:
    """The attention of one student layer; returns its output on the calibration tokens.

    Shapes:
        states: (tokens, hidden), the student's input to the layer
    """
    fold = _fold(states, theirs["input"], kept)
    extended = with_one(states.double())
    root = _root(extended.T @ extended)
    attention, ours = source.attention, block.attention
    plan = _plan_layer(ours.self.num_attention_heads, attention, kept, fold, root)
    _factorize_scores(ours.self, attention.self, fold, root, plan)
    _factorize_values(ours, attention, kept, fold, root, plan)
    _copy_norm(ours.output.LayerNorm, attention.output.LayerNorm, kept)
    context = states_of(bert, {"context": (ours.self, "output")}, rows, "cpu")["context"]
    _refit(ours.output.dense, context, theirs["attention sum"][:, kept] - states)
    result: Tensor = ours.output(context, states)
    return result


def _derive_neurons(
    block: Any, source: Any, states: Tensor, theirs: dict[str, Tensor], kept: Tensor
) -> Tensor:
    """The feed-forward part of one student layer; returns its output on the calibration tokens.

    Shapes:
        states: (tokens, hidden), the student's attention output
    """
    fold = _fold(states, theirs["attention"], kept)
    _select_neurons(block, source, kept, fold, theirs["neurons"])
    _copy_norm(block.output.LayerNorm, source.output.LayerNorm, kept)
    neurons = block.intermediate(states)
    _refit(block.output.dense, neurons, theirs["sum"][:, kept] - states)
    result: Tensor = block.output(neurons, states)
    return result


def _refit(linear: nn.Linear, inputs: Tensor, targets: Tensor) -> None:
    """Refit a linear layer from inputs to targets by least squares, with its weights as prior."""
    _put(linear, nearest_fit(inputs, targets, _with_bias(linear), REFIT_RIDGE))


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
    student_heads: int, attention: Any, kept: Tensor, fold: Tensor, root: Tensor
) -> list[HeadSource]:
    """The teacher heads that each student head starts from, from statistics of its inputs."""
    query, key, value = (
        (root @ (_with_bias(linear) @ fold).T).T
        for linear in (attention.self.query, attention.self.key, attention.self.value)
    )
    output = attention.output.dense.weight.cpu().double()[kept]
    return plan_heads(query, key, value, output, attention.self.num_attention_heads, student_heads)


def _factorize_scores(
    target: Any, source: Any, fold: Tensor, root: Tensor, plan: list[HeadSource]
) -> None:
    """Best low-rank query and key for each head's attention scores on the layer's inputs.

    With x the student's inputs and a 1, the teacher's scores are x A B^T x' / sqrt(d); the student
    divides by its own sqrt(d), hence the factor. R = root of E[x x^T]; the SVD of R A B^T R^T is
    taken through the small QR factors of R A and R B; their pseudo-inverses also serve heads wider
    than the student's whole state, and pruned ones.
    """
    width, target_width = source.attention_head_size, target.attention_head_size
    scale = (target_width / width) ** 0.5
    query, key = _with_bias(source.query) @ fold, _with_bias(source.key) @ fold
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
    target: Any, source: Any, kept: Tensor, fold: Tensor, root: Tensor, plan: list[HeadSource]
) -> None:
    """Best low-rank value and output for each head's contribution to the residual stream.

    Teacher heads that are merged have similar attention, so their contributions are added up;
    student heads that share a teacher head take alternate singular directions of its contribution.
    """
    width, target_width = source.self.attention_head_size, target.self.attention_head_size
    value = _with_bias(source.self.value) @ fold
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


def _with_bias(linear: nn.Linear) -> Tensor:
    """Weight with the bias as last column: (outputs, inputs + 1), float64."""
    weight, bias = linear.weight.cpu().double(), linear.bias.cpu().double()
    return torch.cat([weight, bias.unsqueeze(1)], dim=1)


def _clear(*layers: nn.Linear) -> None:
    """Zero weight and bias; a head wider than the teacher's is not filled completely."""
    for layer in layers:
        layer.weight.zero_()
        layer.bias.zero_()


def _put(linear: nn.Module, weight_and_bias: Tensor) -> None:
    """Write a whole linear layer from weight and bias in the last column."""
    assert isinstance(linear, nn.Linear)
    _put_rows(linear, 0, weight_and_bias)


def _put_rows(linear: nn.Linear, start: int, rows: Tensor) -> None:
    """Write rows of weight and bias."""
    end = start + len(rows)
    linear.weight[start:end] = rows[:, :-1].float()
    linear.bias[start:end] = rows[:, -1].float()


def _select_neurons(target: Any, source: Any, kept: Tensor, fold: Tensor, neurons: Tensor) -> None:
    """Keep the neurons that move the residual stream most; refit their output weights.

    The refit minimizes the error of the layer's output on the calibration rows.

    Shapes:
        neurons: (tokens, teacher intermediate), the teacher's activated neurons
    """
    weight_out = source.output.dense.weight.cpu()[kept].double()
    count = target.intermediate.dense.out_features
    moment = (neurons.T @ neurons).double()
    strength = moment.diagonal().sqrt() * weight_out.norm(dim=0)
    chosen = strength.topk(count).indices.sort().values
    _put(target.intermediate.dense, (_with_bias(source.intermediate.dense) @ fold)[chosen])
    square = moment[chosen][:, chosen]
    square = square + RIDGE * square.diagonal().mean() * torch.eye(count, dtype=square.dtype)
    refitted = torch.linalg.solve(square, moment[chosen] @ weight_out.T).T
    target.output.dense.weight.copy_(refitted.float())
    target.output.dense.bias.copy_(source.output.dense.bias.cpu()[kept])


def _derive_head(student: Any, teacher: TorchClassifier, fold: Tensor, rows: EncodedRows) -> None:
    """Pooler and classifier on the pooled coordinates that move the logits most."""
    pooler, classifier = teacher.model.bert.pooler, teacher.model.classifier.weight.cpu()
    pooled = states_of(teacher.model.bert, {"pooled": (pooler, "output")}, rows, teacher.device)[
        "pooled"
    ]
    strength = pooled.square().mean(dim=0).sqrt() * classifier.norm(dim=0)
    chosen = strength.topk(student.config.hidden_size).indices.sort().values
    _put(student.bert.pooler.dense, (_with_bias(pooler.dense) @ fold)[chosen])
    student.classifier.weight.copy_(classifier[:, chosen])
    student.classifier.bias.copy_(teacher.model.classifier.bias.cpu())
