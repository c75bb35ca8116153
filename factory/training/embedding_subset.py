"""Training on the word embeddings of the training rows only; the rest of the table is set aside.

The embedding table is two thirds of a small student. Gradient, clipping and optimizer would pass
over all of it at every step, though no training text uses most of its rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from factory.models.encoding import EncodedRows


class SubsetEmbedding(nn.Embedding):
    """The embeddings of some tokens of a table, looked up by the tokens' ids in the whole table.

    An id outside the subset raises IndexError.
    """

    place: Tensor

    def __init__(self, table: nn.Embedding, used: Tensor) -> None:
        used = used.to(table.weight.device)
        weight = table.weight.detach()[used].clone()
        super().__init__(weight.shape[0], weight.shape[1], _weight=weight)
        place = torch.full((len(table.weight),), -1, device=used.device)
        place[used] = torch.arange(len(used), device=used.device)
        self.register_buffer("place", place, persistent=False)
        if table.padding_idx is not None:  # its row gets no gradient, as in the whole table
            self.padding_idx = int(place[table.padding_idx])
        self.train(table.training).requires_grad_(table.weight.requires_grad)

    def forward(self, input: Tensor) -> Tensor:
        """(..., tokens) ids to (..., tokens, width)."""
        return functional.embedding(self.place[input], self.weight, self.padding_idx)


@contextlib.contextmanager
def embedding_subset(rows: EncodedRows, *models: Any) -> Iterator[None]:
    """Shrink the word embeddings of transformers models to the tokens of `rows`.

    When the context closes, the whole tables are back in place with the trained rows in them. Rows
    that no text uses keep their values exactly: they get no gradient and no weight decay. Models
    whose word embeddings are not a plain `nn.Embedding` are not changed.
    """
    tables = [model.get_input_embeddings() for model in models]
    pads = [table.padding_idx or 0 for table in tables if isinstance(table, nn.Embedding)]
    used = torch.from_numpy(np.unique(np.concatenate([*rows.input_ids, [rows.pad_id, *pads]])))
    shrunk = [
        (model, table, SubsetEmbedding(table, used.long()))
        for model, table in zip(models, tables, strict=True)
        if type(table) is nn.Embedding
    ]
    for model, _, subset in shrunk:
        model.set_input_embeddings(subset)
    try:
        yield
    finally:
        for model, table, subset in shrunk:
            with torch.no_grad():
                table.weight[used.to(table.weight.device)] = subset.weight.detach()
            model.set_input_embeddings(table)
