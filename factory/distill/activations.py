"""Activations of an unmodified BERT, read with forward hooks: per batch, or collected over rows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from factory.distill.losses import attention_scores
from factory.models.encoding import Batch, EncodedRows, collate, sorted_batches

CALIBRATION_BATCH_SIZE = 32

Side = Literal["input", "output"]


@dataclass(frozen=True, slots=True)
class Activations:
    """The states of one forward pass at the embedding output and at some layers.

    Shapes:
        embedding: (batch, tokens, hidden)
        hidden[layer], query[layer], key[layer], value[layer]: (batch, tokens, hidden)
    """

    heads: int
    embedding: Tensor
    hidden: dict[int, Tensor]
    query: dict[int, Tensor]
    key: dict[int, Tensor]
    value: dict[int, Tensor]

    def scores(self, layer: int) -> Tensor:
        """Unnormalized attention scores of one layer: (batch, heads, tokens, tokens)."""
        return attention_scores(self.query[layer], self.key[layer], self.heads)

    def vectors(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of one layer, each (batch, tokens, hidden)."""
        return self.query[layer], self.key[layer], self.value[layer]


def activations_of(bert: Any, batch: Batch, layers: Sequence[int]) -> Activations:
    """Run a `BertModel` up to the last of the given layers (counted from 1) and read them.

    The scores are computed outside the model from the outputs of its query and key projections,
    so the model keeps its fused attention.
    """
    points: dict[str, tuple[nn.Module, Side]] = {"embedding": (bert.embeddings, "output")}
    for layer in set(layers):
        block = bert.encoder.layer[layer - 1]
        points[f"hidden {layer}"] = (block, "output")
        for name in ("query", "key", "value"):
            points[f"{name} {layer}"] = (getattr(block.attention.self, name), "output")
    with cut_after(bert, max(layers)), forward_hooks(points) as seen:
        bert(batch.input_ids, batch.attention_mask, batch.token_type_ids)
    found = {
        name: {layer: seen[f"{name} {layer}"] for layer in layers}
        for name in ("hidden", "query", "key", "value")
    }
    return Activations(bert.config.num_attention_heads, seen["embedding"], **found)


@contextlib.contextmanager
def forward_hooks(points: Mapping[str, tuple[nn.Module, Side]]) -> Iterator[dict[str, Tensor]]:
    """The states at some points of the last forward pass, while the context is open."""
    seen: dict[str, Tensor] = {}
    handles = [_hook(seen, name, module, side) for name, (module, side) in points.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _hook(seen: dict[str, Tensor], name: str, module: nn.Module, side: Side) -> Any:
    def keep(states: Tensor | tuple[Tensor, ...]) -> None:
        seen[name] = states[0] if isinstance(states, tuple) else states

    if side == "input":
        before: Callable[..., None] = lambda _module, inputs: keep(inputs)  # noqa: E731
        return module.register_forward_pre_hook(before)
    after: Callable[..., None] = lambda _module, _inputs, output: keep(output)  # noqa: E731
    return module.register_forward_hook(after)


@contextlib.contextmanager
def cut_after(bert: Any, layer: int) -> Iterator[None]:
    """Run a `BertModel` only up to a layer, without its pooler, while the context is open."""
    layers, pooler = bert.encoder.layer, bert.pooler
    bert.encoder.layer, bert.pooler = layers[:layer], None
    try:
        yield
    finally:
        bert.encoder.layer, bert.pooler = layers, pooler


@torch.no_grad()
def states_of(
    bert: Any, points: Mapping[str, tuple[nn.Module, Side]], rows: EncodedRows, device: str
) -> dict[str, Tensor]:
    """The states at some points of a `BertModel` in eval mode, of real tokens only.

    Args:
        points: by name, a module below `bert` and its side; the state there is (batch, tokens,
            width), a tuple that starts with it, or (batch, width), one state per row.

    Returns:
        (tokens, width) in float32 on the CPU for each name; the order of the tokens is the same for
        all points and models.
    """
    bert.eval()
    collected: dict[str, list[Tensor]] = {name: [] for name in points}
    with forward_hooks(points) as seen:
        for positions in sorted_batches(rows.lengths, CALIBRATION_BATCH_SIZE):
            batch = collate(rows, positions, device)
            bert(batch.input_ids, batch.attention_mask, batch.token_type_ids)
            real = batch.attention_mask.bool()
            for name in points:
                states = seen[name] if seen[name].ndim == 2 else seen[name][real]
                collected[name].append(states.float().cpu())
    return {name: torch.cat(states) for name, states in collected.items()}


def with_one(states: Tensor) -> Tensor:
    """The states with a 1 appended, for the bias: (tokens, width + 1)."""
    return torch.cat([states, torch.ones(len(states), 1, dtype=states.dtype)], dim=1)


def nearest_fit(inputs: Tensor, targets: Tensor, prior: Tensor, ridge: float) -> Tensor:
    """The linear map from inputs to targets with the least squared error, pulled towards a prior.

    Args:
        ridge: strength of the prior, relative to the mean second moment of the inputs.

    Shapes:
        inputs: (tokens, inputs); targets: (tokens, outputs)
        prior, returns: (outputs, inputs + 1), the bias in the last column
    """
    extended = with_one(inputs.double())
    square = extended.T @ extended
    pull = ridge * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype)
    missing = targets.double() - extended @ prior.T
    correction: Tensor = torch.linalg.solve(square + pull, extended.T @ missing).T
    return prior + correction
