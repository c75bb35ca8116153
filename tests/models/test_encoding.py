"""Token ids, padding and the order of batches."""

from __future__ import annotations

import numpy as np
import torch
from helpers.tiny_models import VOCABULARY, tiny_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.models.encoding import (
    POOL_BATCHES,
    EncodedRows,
    collate,
    encode_inputs,
    epoch_order,
    sorted_batches,
)

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=300)


def pieces(ids: np.ndarray) -> list[str]:
    return [VOCABULARY[number] for number in ids.tolist()]


def rows_of(*lengths: int) -> EncodedRows:
    """Rows whose ids are all the row's number plus 1."""
    ids = [np.full(length, row + 1, dtype=np.int32) for row, length in enumerate(lengths)]
    types = [np.ones(length, dtype=np.int32) for length in lengths]
    return EncodedRows(ids, types, pad_id=99)


def test_texts_become_pieces_with_special_tokens() -> None:
    rows = encode_inputs(tiny_tokenizer(), ["My LAMP is broken!", "shoed"], 16)
    assert pieces(rows.input_ids[0]) == ["[CLS]", "my", "lamp", "is", "broken", "!", "[SEP]"]
    assert pieces(rows.input_ids[1]) == ["[CLS]", "shoe", "##d", "[SEP]"]
    assert [types.tolist() for types in rows.token_type_ids] == [[0] * 7, [0] * 4]
    assert rows.pad_id == 0
    assert len(rows) == 2
    assert rows.lengths.tolist() == [7, 4]


def test_pairs_carry_their_types() -> None:
    rows = encode_inputs(tiny_tokenizer(), [("late", "my shoe")], 16)
    assert pieces(rows.input_ids[0]) == ["[CLS]", "late", "[SEP]", "my", "shoe", "[SEP]"]
    assert rows.token_type_ids[0].tolist() == [0, 0, 0, 1, 1, 1]


def test_long_texts_are_cut_and_keep_their_end_mark() -> None:
    tokenizer = tiny_tokenizer()
    rows = encode_inputs(tokenizer, ["my shoe is late and awful"], 5)
    assert pieces(rows.input_ids[0]) == ["[CLS]", "my", "shoe", "is", "[SEP]"]
    pair = encode_inputs(tokenizer, [("my shoe is late", "the lamp")], 7)
    # the longer text gives way
    assert pieces(pair.input_ids[0]) == ["[CLS]", "my", "shoe", "[SEP]", "the", "lamp", "[SEP]"]


def test_a_padding_tokenizer_does_not_pad_here() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.enable_padding(length=20)
    rows = encode_inputs(tokenizer, ["late", "my shoe is late"], 16)
    assert rows.lengths.tolist() == [3, 6]


def test_no_inputs_are_no_rows() -> None:
    assert len(encode_inputs(tiny_tokenizer(), [], 16)) == 0


def test_padding_reaches_the_longest_chosen_row() -> None:
    padded = rows_of(2, 7, 3).padded(np.array([2, 0]))
    assert padded.input_ids.tolist() == [[3, 3, 3], [1, 1, 99]]
    assert padded.token_type_ids.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert padded.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]


def test_a_batch_says_which_rows_it_holds() -> None:
    batch = collate(rows_of(2, 7, 3), np.array([2, 0]), "cpu")
    assert batch.rows.tolist() == [2, 0]
    assert batch.input_ids.tolist() == [[3, 3, 3], [1, 1, 99]]
    tensors = (batch.input_ids, batch.token_type_ids, batch.attention_mask, batch.rows)
    assert {tensor.dtype for tensor in tensors} == {torch.int64}


@settings(max_examples=60)
@given(LENGTHS, st.integers(1, 17), st.integers(0, 2**32), st.integers(0, 50))
def test_an_epoch_holds_every_row_once(
    lengths: list[int], batch_size: int, seed: int, epoch: int
) -> None:
    batches = epoch_order(np.array(lengths), batch_size, seed, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    sizes = sorted(len(batch) for batch in batches)
    full, rest = divmod(len(lengths), batch_size)
    # the last batch may be smaller, and is there
    assert sizes == ([rest] if rest else []) + [batch_size] * full


def test_seeds_and_epochs_differ() -> None:
    lengths = np.random.default_rng(0).integers(3, 40, 200)
    orders = [
        [batch.tolist() for batch in epoch_order(lengths, 8, seed, epoch)]
        for seed, epoch in ((1, 0), (1, 1), (2, 0), (0, 1))
    ]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])
    # the rows that meet change too, not just the order of the batches
    meetings = [{frozenset(batch) for batch in order} for order in orders]
    assert all(a != b for i, a in enumerate(meetings) for b in meetings[:i])


def test_grouping_by_length_saves_most_padding() -> None:
    lengths = np.random.default_rng(0).integers(3, 128, 8 * POOL_BATCHES)
    grouped = sum(len(b) * lengths[b].max() for b in epoch_order(lengths, 8, 1, 0))
    shuffled = np.random.default_rng(1).permutation(lengths).reshape(-1, 8)
    plain = (8 * shuffled.max(axis=1)).sum()
    assert grouped < 1.06 * lengths.sum()
    assert plain > 1.5 * lengths.sum()


@settings(max_examples=40)
@given(LENGTHS, st.integers(1, 17))
def test_inference_goes_from_short_to_long(lengths: list[int], batch_size: int) -> None:
    batches = list(sorted_batches(np.array(lengths), batch_size))
    order = np.concatenate(batches).tolist()
    assert sorted(order) == list(range(len(lengths)))
    # rows of equal length keep their order
    assert order == sorted(range(len(lengths)), key=lambda row: lengths[row])
    assert all(len(batch) == batch_size for batch in batches[:-1])


def test_no_row_is_no_batch() -> None:
    assert list(sorted_batches(np.array([], dtype=np.int64), 4)) == []
    assert epoch_order(np.array([], dtype=np.int64), 4, 1, 0) == []
