"""The last layer for the first token only: the same logits from less work."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers.tiny_models import open_tiny, save_tiny, tiny_bert

from factory.errors import ParityError
from factory.export.first_token import shorten_last_layer
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


def test_positions_between_tokens_are_refused() -> None:
    model = tiny_bert(position_embedding_type="relative_key", attention="eager")
    with pytest.raises(ParityError, match=r"relative_key positions.*export\.first_token = false"):
        shorten_last_layer(model)


def weight_products(file: Path, batch: int, length: int) -> list[tuple[int, int, int]]:
    """Rows, inputs and outputs of every product with weights, as it runs on a given batch."""
    model = onnx.load(file)
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    nodes = [
        node
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm") and len(weights.get(node.input[1], ())) == 2
    ]
    model.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(node.output[0])
        for node in nodes
        if node.output[0] != "logits"
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    ones = np.ones((batch, length), dtype=np.int64)
    feed = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), ones)
    results = session.run([node.output[0] for node in nodes], feed)
    # Gemm may hold its weight transposed: the output says how wide it is
    return [
        (
            result.size // result.shape[-1],
            int(np.prod(weights[node.input[1]])) // result.shape[-1],
            result.shape[-1],
        )
        for node, result in zip(nodes, results, strict=True)
    ]


def test_the_last_layer_runs_one_row_per_text(tmp_path: Path, exported: Any) -> None:
    """Tiny BERT: 3 layers, 24 wide, 4 heads, 48 feed-forward neurons, 3 labels."""
    batch, length = 2, 17
    tokens = batch * length
    layer = [(tokens, 24, 24)] * 4 + [(tokens, 24, 48), (tokens, 48, 24)]
    heads = batch * 4
    last = [(batch, 24, 24), (heads, 24, 24), (heads, 24, 24), (batch, 24, 24)]
    last += [(batch, 24, 48), (batch, 48, 24)]
    head = [(batch, 24, 24), (batch, 24, 3)]
    assert weight_products(exported.file, batch, length) == 2 * layer + last + head

    file = tmp_path / "model.onnx"
    export_onnx(exported.folder, file, opset=17, first_token=False)
    assert weight_products(file, batch, length) == 3 * layer + head
    check_parity(file, exported.student, atol=1e-4)


def test_parity_up_to_512_tokens(tmp_path: Path) -> None:
    folder = save_tiny(
        tiny_bert(max_position_embeddings=512, num_hidden_layers=1), tmp_path / "student"
    )
    export_onnx(folder, tmp_path / "model.onnx", opset=17)
    differences = check_parity(tmp_path / "model.onnx", open_tiny(folder), atol=1e-5)
    assert "7x512" in differences


def test_a_layer_that_answers_for_the_last_token_is_caught(
    tmp_path: Path, exported: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parity check sees the mistake that this form invites."""
    from factory.export import first_token

    def last_token(self: Any, hidden_states: Any, attention_mask: Any, *_: Any, **__: Any) -> Any:
        return right(self, hidden_states.flip(1), attention_mask.flip(-1))

    right = first_token.FirstTokenLayer.forward
    monkeypatch.setattr(first_token.FirstTokenLayer, "forward", last_token)
    export_onnx(exported.folder, tmp_path / "model.onnx", opset=17)
    with pytest.raises(ParityError, match="does not compute this model"):
        check_parity(tmp_path / "model.onnx", exported.student, atol=1e-4)
