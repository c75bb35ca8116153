"""What activations are read, against what transformers computes itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_models import VOCABULARY, tiny_bert
from torch import nn

from factory.distill.activations import activations_of
from factory.models.encoding import Batch

LENGTHS = (9, 4, 2)


def batch_of(lengths: tuple[int, ...] = LENGTHS) -> Batch:
    """Rows of different length, padded, the second half of each a second text."""
    generator = torch.Generator().manual_seed(3)
    longest = max(lengths)
    ids = torch.randint(5, len(VOCABULARY), (len(lengths), longest), generator=generator)
    mask = torch.tensor([[int(token < length) for token in range(longest)] for length in lengths])
    types = torch.tensor(
        [[int(token >= length // 2) for token in range(longest)] for length in lengths]
    )
    return Batch(ids * mask, types * mask, mask, torch.from_numpy(np.arange(len(lengths))))


def inputs_of(batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return batch.input_ids, batch.attention_mask, batch.token_type_ids


def hooks_of(model: nn.Module) -> list[Any]:
    return [hook for module in model.modules() for hook in module._forward_hooks.values()]


@pytest.mark.parametrize("seed", [1, 2])
@torch.no_grad()
def test_scores_are_those_inside_eager_attention(seed: int) -> None:
    batch = batch_of()
    eager = tiny_bert(seed=seed, attention="eager").bert
    fast = tiny_bert(seed=seed, attention="sdpa").bert
    assert fast.config._attn_implementation == "sdpa"
    attentions = eager(*inputs_of(batch), output_attentions=True).attentions
    found = activations_of(fast, batch, (1, 2, 3))
    blocked = (1.0 - batch.attention_mask.float())[:, None, None, :] * -1e9
    for layer in (1, 2, 3):
        probabilities = torch.softmax(found.scores(layer) + blocked, dim=-1)
        assert probabilities.shape == (3, 4, 9, 9)
        for row, length in enumerate(LENGTHS):  # what padded queries attend to means nothing
            torch.testing.assert_close(
                probabilities[row, :, :length], attentions[layer - 1][row, :, :length]
            )
    # not a test of uniform attention: the probabilities differ clearly
    assert attentions[0][0].std() > 0.02


@torch.no_grad()
def test_states_are_those_the_model_returns() -> None:
    batch = batch_of()
    bert = tiny_bert().bert
    output = bert(*inputs_of(batch), output_hidden_states=True)
    found = activations_of(bert, batch, (2, 3))
    torch.testing.assert_close(found.embedding, output.hidden_states[0], rtol=0, atol=0)
    assert sorted(found.hidden) == sorted(found.query) == sorted(found.key) == [2, 3]
    for layer in (2, 3):
        torch.testing.assert_close(found.hidden[layer], output.hidden_states[layer])
        linear = bert.encoder.layer[layer - 1].attention.self.value
        torch.testing.assert_close(found.value[layer], linear(output.hidden_states[layer - 1]))
    torch.testing.assert_close(found.hidden[3], output.last_hidden_state)


def test_reading_leaves_the_model_as_it_was() -> None:
    batch = batch_of()
    model = tiny_bert()
    with torch.no_grad():
        before = model(*inputs_of(batch)).logits
        activations_of(model.bert, batch, (1, 2, 2))
        after = model(*inputs_of(batch)).logits
    assert torch.equal(before, after)
    assert not hooks_of(model)
    with pytest.raises(IndexError):  # a token that the table does not have
        activations_of(model.bert, Batch(batch.input_ids + 999, *[batch.rows] * 3), (1,))
    assert not hooks_of(model)
    assert (len(model.bert.encoder.layer), model.bert.pooler is None) == (3, False)


def test_only_the_layers_up_to_the_last_one_read_are_run() -> None:
    bert = tiny_bert().bert
    found = activations_of(bert, batch_of(), (2,))
    found.scores(2).sum().backward()
    first, third = bert.encoder.layer[0], bert.encoder.layer[2]
    assert first.attention.self.query.weight.grad.abs().sum() > 0
    assert third.attention.self.query.weight.grad is None
