"""The student start that is taken from the teacher's weights."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_models import tiny_bert, tiny_classifier
from torch import nn

from factory.data.dataset import Dataset
from factory.distill import activations, derive
from factory.distill.activations import activations_of, nearest_fit, states_of
from factory.distill.derive import RIDGE, derive_student
from factory.distill.head_plan import HeadSource
from factory.errors import RecipeError
from factory.models.classifier import TorchClassifier
from factory.models.encoding import EncodedRows, collate, encode_inputs

TEACHER_WIDTH = 24
HEADS = 4
ONE_EACH = [HeadSource(head, (head,)) for head in range(HEADS)]


def calibration_of(teacher: TorchClassifier, dataset: Dataset) -> EncodedRows:
    return encode_inputs(teacher.tokenizer, dataset.train.inputs(), teacher.max_length)


def derived(
    teacher: TorchClassifier, dataset: Dataset, layer_map: tuple[int, ...], **shape: int
) -> tuple[Any, nn.ModuleList]:
    """A student of the given shape, derived from the teacher, with its projections."""
    student = tiny_bert(seed=9, num_hidden_layers=len(layer_map), **shape)
    width = student.config.hidden_size
    projections = nn.ModuleList(nn.Linear(width, TEACHER_WIDTH) for _ in range(len(layer_map) + 1))
    rows = calibration_of(teacher, dataset)
    derive_student(student, projections, teacher, layer_map, rows)
    return student, projections


def test_a_student_of_the_teachers_shape_computes_the_teachers_logits(
    teacher: TorchClassifier, dataset: Dataset
) -> None:
    student, projections = derived(teacher, dataset, (1, 2, 3))
    texts = dataset.dev.inputs()
    expected = teacher.logits(texts)
    assert np.abs(expected).max() > 1  # a trained teacher, not a flat one
    np.testing.assert_allclose(tiny_classifier(student).logits(texts), expected, atol=1e-3)
    rows = encode_inputs(teacher.tokenizer, texts[:8], teacher.max_length)
    batch = collate(rows, np.array([3]), "cpu")
    with torch.no_grad():
        ours, theirs = (
            activations_of(bert, batch, (1, 2, 3)) for bert in (student.bert, teacher.model.bert)
        )
    for layer in (1, 2, 3):
        torch.testing.assert_close(ours.scores(layer), theirs.scores(layer), rtol=0, atol=2e-3)
        state = theirs.hidden[layer]
        error = (projections[layer](ours.hidden[layer]) - state).pow(2).mean().sqrt()
        assert error < 0.02 * state.std()


@pytest.mark.parametrize(
    ("layer_map", "shape"),
    [
        ((2, 3), {"hidden_size": 16, "intermediate_size": 32}),  # heads 4 wide, the teacher's 6
        ((3,), {"hidden_size": 20, "intermediate_size": 8}),
        ((1, 1, 2, 3), {"hidden_size": 24, "intermediate_size": 48}),
    ],
)
def test_any_narrower_shape_starts_nearer_to_the_teacher_than_chance(
    teacher: TorchClassifier,
    dataset: Dataset,
    layer_map: tuple[int, ...],
    shape: dict[str, int],
) -> None:
    student, projections = derived(teacher, dataset, layer_map, **shape)
    assert all(torch.isfinite(value).all() for value in student.state_dict().values())
    rows = encode_inputs(teacher.tokenizer, dataset.dev.inputs(), teacher.max_length)
    batch = collate(rows, np.arange(len(rows)), "cpu")
    arguments = (batch.input_ids, batch.attention_mask, batch.token_type_ids)
    with torch.no_grad():
        ours = student.bert(*arguments, output_hidden_states=True).hidden_states
        theirs = teacher.model.bert(*arguments, output_hidden_states=True).hidden_states
    real = batch.attention_mask.bool()
    for position, layer in enumerate((0, *layer_map)):
        wanted = theirs[layer][real]
        error = (projections[position](ours[position][real]) - wanted).pow(2).mean()
        # 1 is what answering with each coordinate's mean would leave
        assert error < 0.9 * (wanted - wanted.mean(dim=0)).pow(2).mean()


def test_a_student_narrower_than_one_teacher_head(
    teacher: TorchClassifier, dataset: Dataset
) -> None:
    """As 48 wide from BERT-base, whose heads are 64 wide; here 4 from heads of 6."""
    student, projections = derived(teacher, dataset, (2, 3), hidden_size=4, intermediate_size=8)
    for module in (student, projections):
        assert all(torch.isfinite(value).all() for value in module.state_dict().values())
    logits = tiny_classifier(student).logits(dataset.dev.inputs())
    assert logits.std(axis=0).min() > 0


def test_teacher_heads_that_do_nothing_are_no_obstacle(
    teacher: TorchClassifier, dataset: Dataset
) -> None:
    """A pruned head's zeros make its factors singular."""
    block = teacher.model.bert.encoder.layer[1].attention
    with torch.no_grad():
        for linear in (block.self.query, block.self.key, block.self.value):
            linear.weight[6:12] = 0.0
            linear.bias[6:12] = 0.0
        block.output.dense.weight[:, 6:12] = 0.0
    student, _ = derived(teacher, dataset, (1, 2, 3))
    texts = dataset.dev.inputs()
    np.testing.assert_allclose(
        tiny_classifier(student).logits(texts), teacher.logits(texts), atol=1e-3
    )


def test_states_are_those_of_real_tokens(
    teacher: TorchClassifier, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against every text alone, so that no batch and no padding can enter."""
    monkeypatch.setattr(activations, "CALIBRATION_BATCH_SIZE", 4)
    texts = dataset.dev.inputs()[:10]
    rows = encode_inputs(teacher.tokenizer, texts, teacher.max_length)
    bert = teacher.model.bert
    block = bert.encoder.layer[1]
    points: dict[str, Any] = {
        "input": (block, "input"),
        "neurons": (block.intermediate, "output"),
        "output": (block, "output"),
        "pooled": (bert.pooler, "output"),
    }
    states = states_of(bert, points, rows, "cpu")
    alone: dict[str, list[np.ndarray]] = {name: [] for name in points}
    for position in np.argsort(rows.lengths, kind="stable"):
        encoded = teacher.tokenizer(texts[position], return_tensors="pt")
        with torch.no_grad():
            output = bert(**encoded, output_hidden_states=True)
            inside = block.attention(output.hidden_states[1])[0]
            neurons = nn.functional.gelu(block.intermediate.dense(inside))
        alone["input"] += list(output.hidden_states[1][0].numpy())
        alone["neurons"] += list(neurons[0].numpy())
        alone["output"] += list(output.hidden_states[2][0].numpy())
        alone["pooled"] += list(output.pooler_output.numpy())
    for name, wanted in alone.items():
        np.testing.assert_allclose(states[name], np.stack(wanted), rtol=1e-4, atol=1e-5)


def test_the_nearest_fit_is_least_squares_and_keeps_the_prior_where_nothing_varies() -> None:
    random = np.random.default_rng(0)
    inputs, prior = random.normal(size=(60, 3)), random.normal(size=(2, 4))
    inputs[:, 2] = 0.0  # never varies: the prior's column stays
    targets = random.normal(size=(60, 2))
    fitted = nearest_fit(*(torch.from_numpy(a) for a in (inputs, targets, prior)), ridge=1e-10)
    columns = np.column_stack([inputs[:, :2], np.ones(60)])
    expected = np.linalg.lstsq(columns, targets, rcond=None)[0].T
    np.testing.assert_allclose(fitted[:, [0, 1, 3]], expected, atol=1e-6)
    np.testing.assert_allclose(fitted[:, 2], prior[:, 2])
    pulled = nearest_fit(*(torch.from_numpy(a) for a in (inputs, targets, prior)), ridge=1e10)
    np.testing.assert_allclose(pulled, prior, atol=1e-6)


def moment_of(width: int) -> torch.Tensor:
    """A second moment of uneven, correlated states with a 1 appended: (width + 1, width + 1)."""
    generator = torch.Generator().manual_seed(4)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
    states = torch.randn(200, width, generator=generator, dtype=torch.float64) @ mixing + 0.3
    states = torch.cat([states, torch.ones(200, 1)], dim=1)
    return states.T @ states


def selecting(kept: torch.Tensor, width: int) -> torch.Tensor:
    """The fold that takes the kept coordinates for themselves and 0 for the others."""
    fold = torch.zeros(width + 1, len(kept) + 1, dtype=torch.float64)
    fold[kept, torch.arange(len(kept))] = 1.0
    fold[-1, -1] = 1.0
    return fold


def joined(linear: nn.Linear, columns: Any = slice(None)) -> np.ndarray:
    """Weight with the bias as last column."""
    weight = linear.weight.detach().double()[:, columns]
    return torch.cat([weight, linear.bias.detach().double()[:, None]], dim=1).numpy()


def root_of(moment: torch.Tensor) -> np.ndarray:
    ridged = moment.numpy() + RIDGE * np.diag(moment.numpy()).mean() * np.eye(len(moment))
    return np.linalg.cholesky(ridged).T


@pytest.mark.parametrize("head_width", [3, 9])
@torch.no_grad()
def test_scores_are_the_best_of_their_rank(head_width: int) -> None:
    """Eckart and Young: no product of this rank is nearer, measured on the calibration states."""
    source = tiny_bert(seed=3).bert.encoder.layer[0].attention.self
    kept = torch.arange(0, 24, 2)
    moment = moment_of(12)
    target = SimpleNamespace(
        attention_head_size=head_width,
        query=nn.Linear(12, HEADS * head_width),
        key=nn.Linear(12, HEADS * head_width),
    )
    root = root_of(moment)
    fold = selecting(kept, 24)
    derive._factorize_scores(target, source, fold, torch.from_numpy(root), ONE_EACH)
    for head in range(HEADS):
        theirs, ours = (
            slice(head * 6, head * 6 + 6),
            slice(head * head_width, (head + 1) * head_width),
        )
        wanted = joined(source.query, kept)[theirs].T @ joined(source.key, kept)[theirs] / 6**0.5
        got = joined(target.query)[ours].T @ joined(target.key)[ours] / head_width**0.5
        singular = np.linalg.svd(root @ wanted @ root.T, compute_uv=False)
        least = np.sqrt((singular[head_width:] ** 2).sum())
        error = np.linalg.norm(root @ (wanted - got) @ root.T)
        assert error == pytest.approx(least, rel=1e-3, abs=1e-4 * singular[0])
        assert least == pytest.approx(0, abs=1e-9 * singular[0]) if head_width >= 6 else least > 0


@pytest.mark.parametrize("head_width", [3, 9])
@torch.no_grad()
def test_values_are_the_best_of_their_rank(head_width: int) -> None:
    source = tiny_bert(seed=3).bert.encoder.layer[0].attention
    kept = torch.arange(0, 24, 2)
    moment = moment_of(12)
    target = SimpleNamespace(
        self=SimpleNamespace(
            attention_head_size=head_width, value=nn.Linear(12, HEADS * head_width)
        ),
        output=SimpleNamespace(dense=nn.Linear(HEADS * head_width, 12)),
    )
    root = root_of(moment)
    fold = selecting(kept, 24)
    derive._factorize_values(target, source, kept, fold, torch.from_numpy(root), ONE_EACH)
    source_output = source.output.dense.weight.double().numpy()[kept.numpy()]
    target_output = target.output.dense.weight.double().numpy()
    for head in range(HEADS):
        theirs, ours = (
            slice(head * 6, head * 6 + 6),
            slice(head * head_width, (head + 1) * head_width),
        )
        wanted = source_output[:, theirs] @ joined(source.self.value, kept)[theirs]
        got = target_output[:, ours] @ joined(target.self.value)[ours]
        singular = np.linalg.svd(wanted @ root.T, compute_uv=False)
        least = np.sqrt((singular[head_width:] ** 2).sum())
        error = np.linalg.norm((wanted - got) @ root.T)
        assert error == pytest.approx(least, rel=1e-3, abs=1e-4 * singular[0])
    torch.testing.assert_close(target.output.dense.bias, source.output.dense.bias[kept])


@torch.no_grad()
def test_kept_neurons_stand_in_for_the_dropped() -> None:
    """Dropped neurons that are copies of kept ones cost nothing."""
    source = tiny_bert(seed=3).bert.encoder.layer[0]
    random = torch.Generator().manual_seed(1)
    activated = torch.randn(300, 24, generator=random).abs()
    activated = torch.cat([activated * 2, activated], dim=1)  # the second half is half the first
    target = tiny_bert(seed=5, intermediate_size=24).bert.encoder.layer[0]
    source.output.dense.weight[:, 24:] = source.output.dense.weight[:, :24] * 0.1
    kept = torch.arange(24)
    derive._select_neurons(target, source, kept, selecting(kept, 24), activated.double())
    torch.testing.assert_close(
        target.intermediate.dense.weight, source.intermediate.dense.weight[:24]
    )
    wanted = activated @ source.output.dense.weight.T
    torch.testing.assert_close(
        activated[:, :24] @ target.output.dense.weight.T, wanted, rtol=0, atol=2e-2
    )


def test_the_teacher_is_only_read(teacher: TorchClassifier, dataset: Dataset) -> None:
    before = {name: value.clone() for name, value in teacher.model.state_dict().items()}
    derived(teacher, dataset, (2, 3), hidden_size=16, intermediate_size=32)
    after = teacher.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not [h for module in teacher.model.modules() for h in module._forward_hooks.values()]


def test_the_teachers_dropout_does_not_enter(dataset: Dataset) -> None:
    loud = tiny_bert(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5).train()
    students = [derived(tiny_classifier(loud.train()), dataset, (3,))[0] for _ in range(2)]
    for a, b in zip(*(student.parameters() for student in students), strict=True):
        assert torch.equal(a, b)


def test_what_cannot_be_derived_is_refused(teacher: TorchClassifier, dataset: Dataset) -> None:
    with pytest.raises(RecipeError) as caught:
        derived(
            teacher,
            dataset,
            (3,),
            hidden_size=32,
            intermediate_size=49,
        )
    assert list(caught.value.problems) == [
        "the student's hidden_size 32 is larger than the teacher's 24",
        "the student's intermediate_size 49 is larger than the teacher's 48",
    ]
    assert "student.start" in caught.value.headline
