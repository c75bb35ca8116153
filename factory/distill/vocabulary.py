"""Training on the word embeddings of the transfer set only, with the rest of the table put aside.

The embedding table is two thirds of the student. Gradient, clipping and optimizer would pass over
all of it at every step, though no text of the transfer set uses most of its rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from factory.models.encoding import EncodedRows


@contextlib.contextmanager
def used_vocabulary(rows: EncodedRows, *berts: Any) -> Iterator[EncodedRows]:
    """Shrink the models' word embeddings to the tokens of `rows`; yields the rows renumbered.

    When the context closes, the whole tables are back in place with the trained rows in them.
    Rows no text uses keep their values exactly: they get no gradient, and no weight decay either.
    """
    used = np.unique(np.concatenate([*rows.input_ids, np.array([rows.pad_id], dtype=np.int32)]))
    place = torch.from_numpy(used).long()
    whole = [bert.embeddings.word_embeddings for bert in berts]
    for bert, table in zip(berts, whole, strict=True):
        bert.embeddings.word_embeddings = _rows_of(
            table, place, int(used.searchsorted(rows.pad_id))
        )
    try:
        yield EncodedRows(
            [used.searchsorted(ids).astype(np.int32) for ids in rows.input_ids],
            rows.token_type_ids,
            int(used.searchsorted(rows.pad_id)),
        )
    finally:
        for bert, table in zip(berts, whole, strict=True):
            trained = bert.embeddings.word_embeddings.weight.detach()
            with torch.no_grad():
                table.weight[place.to(table.weight.device)] = trained
            bert.embeddings.word_embeddings = table


def _rows_of(table: nn.Embedding, place: torch.Tensor, pad_place: int) -> nn.Embedding:
    weight = table.weight.detach()[place.to(table.weight.device)].clone()
    # the pad token's row gets no gradient, as in the whole table
    padding = None if table.padding_idx is None else pad_place
    small = nn.Embedding(weight.shape[0], weight.shape[1], padding_idx=padding, _weight=weight)
    return small.train(table.training).requires_grad_(table.weight.requires_grad)
