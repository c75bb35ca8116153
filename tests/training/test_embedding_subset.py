"""Training on a part of the embedding table is training, and the rest of the table stays."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from helpers.non_bert_models import tiny_roberta
from helpers.tiny_models import LABELS, tiny_bert

from factory.models.encoding import EncodedRows, collate
from factory.training.embedding_subset import embedding_subset


def rows_of(*texts: list[int], pad: int = 0) -> EncodedRows:
    ids = [np.array(text, dtype=np.int32) for text in texts]
    return EncodedRows(ids, [np.zeros_like(row) for row in ids], pad_id=pad)


def test_the_same_outputs_with_the_small_tables() -> None:
    model = tiny_bert().eval()
    rows = rows_of([2, 17, 9, 3], [2, 9, 3])

    def outputs() -> torch.Tensor:
        batch = collate(rows, np.arange(2), "cpu")
        with torch.no_grad():
            result: torch.Tensor = model(batch.input_ids, batch.attention_mask).logits
        return result

    before = outputs()
    whole = model.bert.embeddings.word_embeddings
    with embedding_subset(rows, model):
        assert model.bert.embeddings.word_embeddings.num_embeddings == 5  # with the pad token
        torch.testing.assert_close(outputs(), before, rtol=0, atol=0)
        with pytest.raises(IndexError):  # a token of no row
            model(torch.tensor([[2, 18, 3]]))
    assert model.bert.embeddings.word_embeddings is whole
    torch.testing.assert_close(outputs(), before, rtol=0, atol=0)


def test_other_architectures_are_shrunk_too() -> None:
    model = tiny_roberta(LABELS).eval()  # its positions are counted from the pad token's id
    rows = rows_of([0, 9, 17, 2], [0, 9, 2], pad=1)
    batch = collate(rows, np.arange(2), "cpu")
    with torch.no_grad():
        before = model(batch.input_ids, batch.attention_mask).logits
        with embedding_subset(rows, model):
            assert model.get_input_embeddings().num_embeddings == 5
            found = model(batch.input_ids, batch.attention_mask).logits
    torch.testing.assert_close(found, before, rtol=0, atol=0)


def test_trained_rows_return_and_the_others_keep_every_bit() -> None:
    model = tiny_bert()
    table = model.bert.embeddings.word_embeddings.weight
    before = table.detach().clone()
    with embedding_subset(rows_of([2, 17, 3]), model), torch.no_grad():
        small = model.bert.embeddings.word_embeddings
        assert small.padding_idx == 0
        assert small.weight.requires_grad
        small.weight += 1.0
    expected = before.clone()
    expected[[0, 2, 3, 17]] += 1.0
    assert torch.equal(table, expected)


def test_the_table_is_whole_again_after_a_failure() -> None:
    model = tiny_bert().requires_grad_(False)
    whole = model.bert.embeddings.word_embeddings
    with contextlib.suppress(KeyboardInterrupt), embedding_subset(rows_of([2, 3]), model):
        assert not model.bert.embeddings.word_embeddings.weight.requires_grad
        raise KeyboardInterrupt
    assert model.bert.embeddings.word_embeddings is whole
