"""Reading hidden states and attention scores out of an unmodified BERT with forward hooks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from factory.distill.losses import attention_scores


@dataclass(slots=True)
class Recording:
    """What the last forward pass left at the embedding output and at the chosen layers.

    Shapes:
        embedding: (batch, tokens, hidden)
        hidden[layer], query[layer], key[layer], value[layer]: (batch, tokens, hidden)
    """

    heads: int
    embedding: Tensor | None = None
    hidden: dict[int, Tensor] = field(default_factory=dict)
    query: dict[int, Tensor] = field(default_factory=dict)
    key: dict[int, Tensor] = field(default_factory=dict)
    value: dict[int, Tensor] = field(default_factory=dict)

    def scores(self, layer: int) -> Tensor:
        """Unnormalized attention scores of one layer: (batch, heads, tokens, tokens)."""
        return attention_scores(self.query[layer], self.key[layer], self.heads)

    def embeddings(self) -> Tensor:
        """The embedding output of the last forward pass."""
        if self.embedding is None:
            raise RuntimeError("no forward pass has been recorded yet")
        return self.embedding


@contextlib.contextmanager
def recording(bert: Any, layers: Sequence[int], *, values: bool = False) -> Iterator[Recording]:
    """Record the given layers (counted from 1) of a `BertModel` while the context is open.

    The scores are computed outside the model from the outputs of its query and key projections,
    so the model keeps whatever fast attention it uses; nothing else is stored.

    Args:
        values: record the outputs of the value projections too.
    """
    result = Recording(heads=bert.config.num_attention_heads)

    def keep_embedding(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        result.embedding = output

    handles = [bert.embeddings.register_forward_hook(keep_embedding)]
    for layer in sorted(set(layers)):
        block = bert.encoder.layer[layer - 1]
        handles += [
            block.register_forward_hook(_keep(result.hidden, layer)),
            block.attention.self.query.register_forward_hook(_keep(result.query, layer)),
            block.attention.self.key.register_forward_hook(_keep(result.key, layer)),
        ]
        if values:
            values_of_layer = block.attention.self.value
            handles.append(values_of_layer.register_forward_hook(_keep(result.value, layer)))
    try:
        yield result
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def cut_after(bert: Any, layer: int) -> Iterator[None]:
    """Run a `BertModel` only up to a layer, without its pooler, while the context is open."""
    layers, pooler = bert.encoder.layer, bert.pooler
    bert.encoder.layer, bert.pooler = layers[:layer].train(bert.training), None
    try:
        yield
    finally:
        bert.encoder.layer, bert.pooler = layers, pooler


def _keep(
    target: dict[int, Tensor], layer: int
) -> Callable[[nn.Module, object, Tensor | tuple[Tensor, ...]], None]:
    def hook(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        target[layer] = output[0] if isinstance(output, tuple) else output

    return hook
