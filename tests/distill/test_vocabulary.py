"""Training on a part of the embedding table is training, and the rest of the table stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import tiny_bert

from factory.distill.vocabulary import used_vocabulary
from factory.models.encoding import EncodedRows, collate


def rows_of(*texts: list[int]) -> EncodedRows:
    ids = [np.array(text, dtype=np.int32) for text in texts]
    return EncodedRows(ids, [np.zeros_like(row) for row in ids], pad_id=0)


def test_the_same_outputs_with_the_small_tables() -> None:
    model = tiny_bert().eval()
    rows = rows_of([2, 17, 9, 3], [2, 9, 3])

    def outputs(chosen: EncodedRows) -> torch.Tensor:
        batch = collate(chosen, np.arange(2), "cpu")
        with torch.no_grad():
            result: torch.Tensor = model(batch.input_ids, batch.attention_mask).logits
        return result

    before = outputs(rows)
    whole = model.bert.embeddings.word_embeddings
    with used_vocabulary(rows, model.bert) as small:
        assert [row.tolist() for row in small.input_ids] == [[1, 4, 3, 2], [1, 3, 2]]
        assert model.bert.embeddings.word_embeddings.num_embeddings == 5  # with the pad token
        torch.testing.assert_close(outputs(small), before, rtol=0, atol=0)
    assert model.bert.embeddings.word_embeddings is whole
    torch.testing.assert_close(outputs(rows), before, rtol=0, atol=0)


def test_trained_rows_return_and_the_others_keep_every_bit() -> None:
    model = tiny_bert()
    table = model.bert.embeddings.word_embeddings.weight
    before = table.detach().clone()
    with used_vocabulary(rows_of([2, 17, 3]), model.bert), torch.no_grad():
        small = model.bert.embeddings.word_embeddings
        assert small.padding_idx == 0
        assert small.weight.requires_grad
        small.weight += 1.0
    expected = before.clone()
    expected[[0, 2, 3, 17]] += 1.0
    assert torch.equal(table, expected)


def test_the_table_is_whole_again_after_a_failure() -> None:
    model = tiny_bert()
    whole = model.bert.embeddings.word_embeddings
    with pytest.raises(KeyboardInterrupt), used_vocabulary(rows_of([2, 3]), model.bert):
        raise KeyboardInterrupt
    assert model.bert.embeddings.word_embeddings is whole


def test_a_frozen_table_stays_frozen() -> None:
    model = tiny_bert().requires_grad_(False)
    with used_vocabulary(rows_of([2, 3]), model.bert):
        assert not model.bert.embeddings.word_embeddings.weight.requires_grad
