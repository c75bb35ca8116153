"""Packing against a plain list of all tokens, cut by hand."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.data.corpus import shards as shards_module
from factory.data.corpus.packing import RowLayout
from factory.data.corpus.reading import Piece
from factory.data.corpus.rows import PackedRows, open_rows
from factory.data.corpus.shards import shard_file, write_shards

PAD, CLS, SEP = 0, 2, 3


def layout(length: int, dtype: str = "uint16") -> RowLayout:
    return RowLayout(length, CLS, SEP, PAD, dtype)


def words_as_numbers(texts: list[str]) -> list[list[int]]:
    """A tokenizer for texts of numbers between spaces."""
    return [[int(word) for word in text.split()] for text in texts]


def plain_rows(documents: list[list[int]], length: int, limit: int | None) -> list[list[int]]:
    """The rows as the definition says: one long list, a separator between documents, cut."""
    stream: list[int] = []
    for document in documents:
        if document:
            stream += [SEP, *document] if stream else document
    stream = stream[:limit]
    content = length - 2
    rows = [[CLS, *stream[i : i + content], SEP] for i in range(0, len(stream), content)]
    return [row + [PAD] * (length - len(row)) for row in rows]


Documents = st.lists(st.lists(st.lists(st.integers(5, 60_000), max_size=9), max_size=4), max_size=9)


@settings(deadline=None)
@given(
    documents=Documents,
    length=st.integers(3, 12),
    limit=st.none() | st.integers(1, 60),
    batch=st.integers(1, 5),
    shard=st.integers(1, 40),
)
def test_rows_are_the_stream_cut_to_length(
    tmp_path_factory: pytest.TempPathFactory,
    documents: list[list[list[int]]],
    length: int,
    limit: int | None,
    batch: int,
    shard: int,
) -> None:
    """Whatever the batches and shards are: documents of several pieces, some without a token."""
    directory = tmp_path_factory.mktemp("packed")
    pieces = [
        Piece(" ".join(map(str, ids)), starts=number == 0)
        for document in documents
        for number, ids in enumerate(document)
    ]
    joined = [[token for ids in document for token in ids] for document in documents]
    expected = plain_rows(joined, length, limit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards_module, "BATCH_PIECES", batch)
        patch.setattr(shards_module, "SHARD_TOKENS", shard)
        index = write_shards(directory, pieces, words_as_numbers, layout(length), limit)
    found = [
        row.tolist()
        for number in range(len(index["shards"]))
        for row in np.load(shard_file(directory, number))
    ]
    assert found == expected
    assert index["tokens"] == sum(sum(1 for t in row if t != PAD) - 2 for row in expected)
    if limit is None:
        assert index["documents"] == sum(1 for document in joined if document)
    if expected:
        _check_batches(open_rows(directory), expected)


def _check_batches(rows: PackedRows, expected: list[list[int]]) -> None:
    """Batches and lengths, from the mapped files, are those of the plain rows."""
    lengths = [sum(1 for token in row if token != PAD) for row in expected]
    assert len(rows) == len(expected)
    assert rows.lengths.tolist() == lengths
    last = len(expected) - 1
    for positions in ([0], [last], [last, 0, last // 2]):
        batch = rows.padded(np.array(positions))
        longest = max(lengths[position] for position in positions)
        assert batch.input_ids.tolist() == [expected[p][:longest] for p in positions]
        assert batch.attention_mask.tolist() == [
            [int(token < lengths[p]) for token in range(longest)] for p in positions
        ]
        assert not batch.token_type_ids.any()
        assert batch.input_ids.dtype == batch.attention_mask.dtype == np.int64


def write_numbers(directory: Path, count: int, dtype: str = "uint16") -> PackedRows:
    pieces = [Piece(str(5 + number), starts=True) for number in range(count)]
    write_shards(directory, pieces, words_as_numbers, layout(8, dtype), None)
    return open_rows(directory)


def test_the_rows_stay_on_disk(tmp_path: Path) -> None:
    rows = write_numbers(tmp_path, 200)
    assert all(isinstance(shard, np.memmap) for shard in rows.shards)
    assert {shard.dtype for shard in rows.shards} == {np.dtype("uint16")}
    wide = tmp_path / "wide"
    wide.mkdir()
    assert {shard.dtype for shard in write_numbers(wide, 9, "uint32").shards} == {
        np.dtype("uint32")
    }


def test_a_sample_is_spread_over_the_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards_module, "SHARD_TOKENS", 50)
    monkeypatch.setattr(shards_module, "BATCH_PIECES", 10)
    rows = write_numbers(tmp_path, 200)
    assert len(rows.shards) > 3
    few = rows.sample(5)
    firsts = [int(ids[1]) for ids in few.input_ids]
    assert firsts == sorted(firsts)
    assert all(15 < later - earlier < 70 for earlier, later in pairwise(firsts))
    everything = rows.sample(10_000)
    assert len(everything) == len(rows)
    assert everything.lengths.tolist() == rows.lengths.tolist()
    assert not any(PAD in ids for ids in everything.input_ids)
