"""What the hooks record against what transformers computes itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import VOCABULARY, tiny_bert
from torch import nn

from factory.distill.capture import recording

LENGTHS = (9, 4, 2)


def batch() -> dict[str, torch.Tensor]:
    """Three rows of different length, padded, the second half of each a second text."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(5, len(VOCABULARY), (3, 9), generator=generator)
    mask = torch.tensor([[int(token < length) for token in range(9)] for length in LENGTHS])
    types = torch.tensor([[int(token >= length // 2) for token in range(9)] for length in LENGTHS])
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": types * mask}


def hooks_of(model: nn.Module) -> list[Any]:
    return [hook for module in model.modules() for hook in module._forward_hooks.values()]


@pytest.mark.parametrize("seed", [1, 2])
def test_scores_are_those_inside_eager_attention(seed: int) -> None:
    inputs = batch()
    eager = tiny_bert(seed=seed, attention="eager").bert
    fast = tiny_bert(seed=seed, attention="sdpa").bert
    assert fast.config._attn_implementation == "sdpa"
    with torch.no_grad():
        attentions = eager(**inputs, output_attentions=True).attentions
        with recording(fast, (1, 2, 3)) as record:
            fast(**inputs)
    blocked = (1.0 - inputs["attention_mask"].float())[:, None, None, :] * -1e9
    for layer in (1, 2, 3):
        probabilities = torch.softmax(record.scores(layer) + blocked, dim=-1)
        assert probabilities.shape == (3, 4, 9, 9)
        for row, length in enumerate(LENGTHS):  # what padded queries attend to means nothing
            torch.testing.assert_close(
                probabilities[row, :, :length], attentions[layer - 1][row, :, :length]
            )
    # not a test of uniform attention: the probabilities differ clearly
    assert attentions[0][0].std() > 0.02


def test_states_are_those_the_model_returns() -> None:
    inputs = batch()
    bert = tiny_bert().bert
    with torch.no_grad(), recording(bert, (2, 3)) as record:
        output = bert(**inputs, output_hidden_states=True)
    torch.testing.assert_close(record.embeddings(), output.hidden_states[0], rtol=0, atol=0)
    assert sorted(record.hidden) == sorted(record.query) == sorted(record.key) == [2, 3]
    for layer in (2, 3):
        torch.testing.assert_close(record.hidden[layer], output.hidden_states[layer])
    torch.testing.assert_close(record.hidden[3], output.last_hidden_state)


def test_a_recording_changes_no_output() -> None:
    inputs = batch()
    model = tiny_bert()
    with torch.no_grad():
        before = model(**inputs).logits
        with recording(model.bert, (1, 2, 3)):
            during = model(**inputs).logits
    assert torch.equal(before, during)


def test_gradients_flow_through_a_recording() -> None:
    bert = tiny_bert().bert
    with recording(bert, (2,)) as record:
        bert(**batch())
        record.scores(2).sum().backward()
    first, third = bert.encoder.layer[0], bert.encoder.layer[2]
    assert first.attention.self.query.weight.grad.abs().sum() > 0
    assert third.attention.self.query.weight.grad is None


def test_each_forward_pass_replaces_the_one_before() -> None:
    bert = tiny_bert().bert
    inputs = batch()
    short = {name: values[1:, :4] for name, values in inputs.items()}
    with torch.no_grad(), recording(bert, (1,)) as record:
        bert(**inputs)
        bert(**short)
    assert record.embeddings().shape == (2, 4, 24)
    assert record.scores(1).shape == (2, 4, 4, 4)


def test_a_layer_named_twice_is_recorded_once() -> None:
    bert = tiny_bert().bert
    with recording(bert, (2, 2, 3)):
        assert len(hooks_of(bert)) == 1 + 2 * 3


@torch.no_grad()
def test_values_are_recorded_only_when_asked_for() -> None:
    inputs = batch()
    bert = tiny_bert().bert
    with recording(bert, (2, 3)) as without:
        bert(**inputs)
    assert not without.value
    with recording(bert, (2, 3), values=True) as record:
        states = bert(**inputs, output_hidden_states=True).hidden_states
    assert sorted(record.value) == [2, 3]
    for layer in (2, 3):
        linear = bert.encoder.layer[layer - 1].attention.self.value
        torch.testing.assert_close(record.value[layer], linear(states[layer - 1]))
    assert not hooks_of(bert)


def test_no_hook_stays_behind() -> None:
    bert = tiny_bert().bert
    with recording(bert, (1, 3)):
        assert hooks_of(bert)
    assert not hooks_of(bert)
    with pytest.raises(ZeroDivisionError), recording(bert, (1, 3)):
        raise ZeroDivisionError
    assert not hooks_of(bert)


def test_reading_before_a_forward_pass_is_an_error() -> None:
    with (
        recording(tiny_bert().bert, (1,)) as record,
        pytest.raises(RuntimeError, match="no forward pass"),
    ):
        record.embeddings()
