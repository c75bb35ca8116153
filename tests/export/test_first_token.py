"""The last layer for the first token only: the same logits from less work."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_models import tiny_bert

from factory.errors import ParityError
from factory.export.first_token import FirstTokenLayer, shorten_last_layer
from factory.export.onnx import export_onnx
from factory.export.parity import check_parity


def ragged_batch(rows: int, length: int) -> dict[str, torch.Tensor]:
    """Random tokens; each row masked from a place of its own on, the first row not at all."""
    random = torch.Generator().manual_seed(rows * 100 + length)
    lengths = torch.randint(1, length + 1, (rows,), generator=random)
    lengths[0] = length
    return {
        "input_ids": torch.randint(0, 60, (rows, length), generator=random),
        "token_type_ids": torch.randint(0, 2, (rows, length), generator=random),
        "attention_mask": (torch.arange(length) < lengths[:, None]).long(),
    }


def logits(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(**batch).logits
    return found


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"num_attention_heads": 1},
        {"num_attention_heads": 12, "hidden_act": "relu"},
        {"num_hidden_layers": 1},
        {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 100},
    ],
)
def test_in_double_precision_nothing_differs(shape: dict[str, Any]) -> None:
    """Rounding aside, both forms are the same function: 1e-12 is far below float32's 1e-7."""
    whole = tiny_bert(attention="eager", seed=3, **shape).double()
    short = copy.deepcopy(whole)
    shorten_last_layer(short)
    for rows, length in ((1, 1), (1, 2), (4, 3), (3, 17), (2, 32)):
        batch = ragged_batch(rows, length)
        difference = (logits(short, batch) - logits(whole, batch)).abs().max()
        assert difference < 1e-12, (rows, length)


def test_pruned_heads_stay_pruned() -> None:
    whole = tiny_bert(attention="eager", seed=4)
    whole.prune_heads({2: [1, 3]})
    whole.double()
    short = copy.deepcopy(whole)
    shorten_last_layer(short)
    batch = ragged_batch(3, 9)
    assert (logits(short, batch) - logits(whole, batch)).abs().max() < 1e-12


def test_what_is_masked_does_not_matter() -> None:
    model = tiny_bert(attention="eager", seed=5)
    shorten_last_layer(model)
    batch = ragged_batch(4, 20)
    other = dict(batch, input_ids=batch["input_ids"].where(batch["attention_mask"] == 1, 7))
    assert not torch.equal(batch["input_ids"], other["input_ids"])
    assert torch.equal(logits(model, batch), logits(model, other))


def test_relative_positions_are_rejected() -> None:
    model = tiny_bert(position_embedding_type="relative_key", attention="eager")
    with pytest.raises(ParityError, match=r"relative_key positions.*export\.first_token = false"):
        shorten_last_layer(model)


def test_the_last_layer_runs_one_row_per_text() -> None:
    """Tiny BERT: 3 layers, 24 wide, 4 heads, 48 feed-forward neurons, 3 labels."""
    model = tiny_bert(attention="eager")
    shorten_last_layer(model)
    ran: list[tuple[int, int, int]] = []

    def record(module: Any, inputs: Any, output: Any) -> None:
        width = output.shape[-1]
        ran.append((output.numel() // width, module.in_features, width))

    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(record)
    batch, length = 2, 17
    logits(model, ragged_batch(batch, length))
    tokens, heads = batch * length, batch * 4
    layer = [(tokens, 24, 24)] * 4 + [(tokens, 24, 48), (tokens, 48, 24)]
    last = [(batch, 24, 24), (heads, 24, 24), (heads, 24, 24), (batch, 24, 24)]
    last += [(batch, 24, 48), (batch, 48, 24)]
    assert ran == 2 * layer + last + [(batch, 24, 24), (batch, 24, 3)]


def test_a_layer_that_answers_for_the_last_token_is_caught(
    tmp_path: Path, exported: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parity finds the error that this form invites; it also proves that the export uses it."""
    original = FirstTokenLayer.forward

    def last_token(self: Any, hidden_states: Any, attention_mask: Any, *_: Any, **__: Any) -> Any:
        return original(self, hidden_states.flip(1), attention_mask.flip(-1))

    monkeypatch.setattr(FirstTokenLayer, "forward", last_token)
    export_onnx(exported.folder, tmp_path / "model.onnx", opset=17)
    with pytest.raises(ParityError, match="does not compute this model"):
        check_parity(tmp_path / "model.onnx", exported.student, atol=1e-4)
    # without it, the whole last layer is exported, and computes the same
    export_onnx(exported.folder, tmp_path / "whole.onnx", opset=17, first_token=False)
    check_parity(tmp_path / "whole.onnx", exported.student, atol=1e-4)
