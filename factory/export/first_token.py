"""The last encoder layer computed for the first token only, which is all a classifier reads."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from factory.errors import ParityError


class FirstTokenLayer(nn.Module):
    """A BERT layer in eval mode that computes only the output for `[CLS]`, with the same weights.

    Query, attention output and both feed-forward products shrink from one row per token to one
    row per text. Keys and values of the tokens are never formed: with head h's query q_h and the
    layer's input X, the scores q_h (X K_h)' are (q_h K_h') X', and the context softmax(s_h) X V_h
    is (softmax(s_h) X) V_h, one row per head instead of one per token. The key's bias adds the
    same number to all scores of a head, which the softmax cancels. Heads are kept apart by
    multiplying their rows with an identity matrix, so that every product with weights is a plain
    matrix product, which quantizers support.
    """

    identity: torch.Tensor

    def __init__(self, layer: Any) -> None:
        super().__init__()
        attention = layer.attention.self
        self.heads: int = attention.num_attention_heads
        self.head_size: int = attention.attention_head_size
        self.query = attention.query
        self.value = attention.value
        keys = attention.key.weight.detach()
        self.key_transposed = nn.Linear(keys.shape[0], keys.shape[1], bias=False)
        self.key_transposed.weight = nn.Parameter(keys.t() / math.sqrt(self.head_size))
        self.register_buffer("identity", torch.eye(self.heads)[:, :, None], persistent=False)
        self.attention_output = layer.attention.output
        self.intermediate = layer.intermediate
        self.output = layer.output

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor]:
        """The layer's output for the first token.

        Args:
            hidden_states: (batch, length, hidden).
            attention_mask: added to the attention scores, (batch, 1, 1, length).

        Returns:
            One tensor, (batch, 1, hidden).
        """
        first = hidden_states[:, :1]
        query = self._by_head(self.query(first)).reshape(-1, self.heads, self.width)
        scores = torch.matmul(self.key_transposed(query), hidden_states.transpose(1, 2))
        shares = (scores + attention_mask[:, 0]).softmax(dim=-1)
        values = self.value(torch.matmul(shares, hidden_states))
        context = self._by_head(values).sum(dim=1).reshape(-1, 1, self.width)
        attended = self.attention_output(context, first)
        return (self.output(self.intermediate(attended), attended),)

    @property
    def width(self) -> int:
        """Numbers in the query of all heads together."""
        return self.heads * self.head_size

    def _by_head(self, rows: torch.Tensor) -> torch.Tensor:
        """One row, or one per head, with the numbers of all other heads set to zero.

        Args:
            rows: (batch, 1 or heads, heads * head size).

        Returns:
            (batch, heads, heads, head size).
        """
        return rows.view(-1, rows.shape[1], self.heads, self.head_size) * self.identity


def shorten_last_layer(model: Any) -> None:
    """Make the last layer of a `BertForSequenceClassification` compute the first token only.

    The logits do not change, except for the order of additions.

    Raises:
        ParityError: the model's attention uses relative positions.
    """
    kind = getattr(model.config, "position_embedding_type", "absolute")
    if kind != "absolute":
        raise ParityError(
            f"export.first_token: the student has {kind} positions, and only absolute ones are "
            "supported; set export.first_token = false"
        )
    layers = model.bert.encoder.layer
    layers[-1] = FirstTokenLayer(layers[-1])
