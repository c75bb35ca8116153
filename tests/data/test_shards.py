"""Packed rows: cut as defined, identical after any kill, bounded memory, empty corpora."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from helpers.tiny_models import FILLERS, save_tiny, tiny_bert, tiny_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.data import shards as shards_module
from factory.data.corpus import make_corpus, row_layout
from factory.data.shards import PackedRows, Piece, RowLayout, open_rows, write_shards
from factory.errors import DataError
from factory.models.source import ModelSource
from factory.recipe.training import GeneralSettings

PAD, CLS, SEP = 0, 2, 3
LAYOUT = RowLayout(8, CLS, SEP, PAD, "uint16")
PIECES = [
    Piece(
        " ".join(str(5 + (7 * number + word) % 90) for word in range(number % 6)), number % 9 == 0
    )
    for number in range(60)
]


class PowerCut(Exception):
    """Interrupts a run."""


def contents(directory: Path) -> dict[str, str]:
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in directory.iterdir()
    }


def numbers(texts: Sequence[str]) -> list[list[int]]:
    return [[int(word) for word in text.split()] for text in texts]


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 4 pieces and shards of about 20 tokens, so that 60 pieces make several."""
    monkeypatch.setattr(shards_module, "BATCH_PIECES", 4)
    monkeypatch.setattr(shards_module, "SHARD_TOKENS", 20)


# packing


def plain_rows(documents: list[list[int]], length: int, limit: int | None) -> list[list[int]]:
    """The rows by definition: one list with separators between documents, cut to length."""
    stream: list[int] = []
    for document in documents:
        if document:
            stream += [SEP, *document] if stream else document
    stream = stream[:limit]
    content = length - 2
    rows = [[CLS, *stream[i : i + content], SEP] for i in range(0, len(stream), content)]
    return [row + [PAD] * (length - len(row)) for row in rows]


Documents = st.lists(st.lists(st.lists(st.integers(5, 60_000), max_size=9), max_size=4), max_size=9)


@settings(deadline=None, max_examples=30)
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
        index = write_shards(directory, pieces, numbers, replace(LAYOUT, length=length), limit)
    files = sorted(directory.glob("shard-*.npy"))
    found = [row.tolist() for file in files for row in np.load(file)]
    assert len(files) == len(index["shards"])
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


def test_rows_stay_on_disk_and_a_sample_is_spread_over_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards_module, "SHARD_TOKENS", 50)
    monkeypatch.setattr(shards_module, "BATCH_PIECES", 10)
    pieces = [Piece(str(5 + number), starts=True) for number in range(200)]
    write_shards(tmp_path, pieces, numbers, replace(LAYOUT, dtype="uint32"), None)
    rows = open_rows(tmp_path)
    assert len(rows.shards) > 3
    assert all(isinstance(shard, np.memmap) for shard in rows.shards)
    assert {shard.dtype for shard in rows.shards} == {np.dtype("uint32")}
    few = rows.sample(5)
    firsts = [int(ids[1]) for ids in few.input_ids]
    assert firsts == sorted(firsts)
    assert all(15 < later - earlier < 70 for earlier, later in pairwise(firsts))
    everything = rows.sample(10_000)
    assert len(everything) == len(rows)
    assert everything.lengths.tolist() == rows.lengths.tolist()
    assert not any(PAD in ids for ids in everything.input_ids)


# interrupted runs


@settings(deadline=None, max_examples=12)
@given(cuts=st.lists(st.integers(0, 14), max_size=4), limit=st.sampled_from([None, 70, 100]))
def test_interrupted_anywhere_the_files_are_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], limit: int | None
) -> None:
    """Each cut is the number of batches that run still tokenizes."""
    whole, cut = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("cut")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards_module, "BATCH_PIECES", 4)
        patch.setattr(shards_module, "SHARD_TOKENS", 20)
        index = write_shards(whole, PIECES, numbers, LAYOUT, limit)
        assert len(index["shards"]) > 2
        for cut_after in cuts:
            _interrupted(cut, cut_after, limit)
        assert write_shards(cut, PIECES, numbers, LAYOUT, limit) == index
    assert contents(cut) == contents(whole)


def _interrupted(directory: Path, batches: int, limit: int | None) -> None:
    done = 0

    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        nonlocal done
        if done == batches:
            raise PowerCut
        done += 1
        return numbers(texts)

    try:
        write_shards(directory, PIECES, tokenize, LAYOUT, limit)
    except PowerCut:
        return


@pytest.mark.usefixtures("small_shards")
def test_finished_shards_are_not_tokenized_again(tmp_path: Path) -> None:
    _interrupted(tmp_path, 9, None)
    seen: list[str] = []

    def remember(texts: Sequence[str]) -> list[list[int]]:
        seen.extend(texts)
        return numbers(texts)

    write_shards(tmp_path, PIECES, remember, LAYOUT, None)
    first = len(PIECES) - len(seen)
    assert 0 < first <= 36
    assert seen == [piece.text for piece in PIECES[first:]]
    seen.clear()
    write_shards(tmp_path, PIECES, remember, LAYOUT, None)
    assert seen == []


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("name", ["save", "write_json"])
@pytest.mark.parametrize("nth", [1, 3])
def test_a_kill_while_a_shard_or_the_index_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, nth: int
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    write_shards(whole, PIECES, numbers, LAYOUT, None)
    calls = 0
    original: Any = np.save if name == "save" else shards_module.write_json

    def failing(target: Any, *arguments: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == nth:
            if name == "save":
                target.write(b"half")
            raise PowerCut
        original(target, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(np if name == "save" else shards_module, name, failing)
        with pytest.raises(PowerCut):
            write_shards(cut, PIECES, numbers, LAYOUT, None)
    write_shards(cut, PIECES, numbers, LAYOUT, None)
    assert contents(cut) == contents(whole)


@pytest.mark.usefixtures("small_shards")
def test_no_more_is_read_than_is_tokenized_next(tmp_path: Path) -> None:
    """From an endless corpus, at most one batch is ahead of the tokenizer."""
    read = tokenized = 0

    def endless() -> Iterator[Piece]:
        nonlocal read
        for read in itertools.count(1):
            assert read - tokenized <= 4
            yield Piece("5 6 7", True)

    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        nonlocal tokenized
        tokenized += len(texts)
        return numbers(texts)

    index = write_shards(tmp_path, endless(), tokenize, LAYOUT, 1000)
    assert index["tokens"] == 1000
    # three tokens and a separator each; one batch may be read to see that there is enough
    assert 250 <= tokenized <= 254
    assert read <= 258


def test_long_documents_make_short_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "BATCH_CHARACTERS", 100)
    sizes: list[int] = []

    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        sizes.append(sum(map(len, texts)))
        return numbers(texts)

    write_shards(tmp_path, [Piece("5 " * 20, True)] * 30, tokenize, LAYOUT, None)
    assert sizes == [120] * 10


# with a real tokenizer


@pytest.fixture
def source(tmp_path: Path) -> ModelSource:
    return ModelSource(str(save_tiny(tiny_bert(), tmp_path / "teacher")), None, "sha256:test")


def test_the_stage_packs_what_the_tokenizer_makes(tmp_path: Path, source: ModelSource) -> None:
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(FILLERS, size=random.integers(1, 30))) for _ in range(50)]
    (tmp_path / "a.txt").write_text("\n".join(texts), encoding="utf-8")
    target = tmp_path / "corpus"
    target.mkdir()
    settings = GeneralSettings(corpus="a.txt", max_length=16)
    facts = make_corpus(target, settings, source, tmp_path)
    tokenizer = tiny_tokenizer()
    expected: list[int] = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        expected += [tokenizer.sep_token_id, *ids] if expected else ids
    rows = open_rows(target)
    found: list[int] = []
    for row, length in zip(
        rows.padded(np.arange(len(rows))).input_ids, rows.lengths.tolist(), strict=True
    ):
        assert row[0] == tokenizer.cls_token_id
        assert row[length - 1] == tokenizer.sep_token_id
        found += row[1 : length - 1].tolist()
    assert found == expected
    assert facts == {
        "documents": 50,
        "tokens": len(expected),
        "rows": -(-len(expected) // 14),
        "shards": 1,
    }


def test_a_corpus_without_a_token(tmp_path: Path, source: ModelSource) -> None:
    for content in ("\n \n\n", "\x00\n"):
        (tmp_path / "a.txt").write_text(content, encoding="utf-8")
        settings = GeneralSettings(corpus="a.txt", max_length=16)
        with pytest.raises(DataError, match=r"a\.txt contains no text"):
            make_corpus(tmp_path, settings, source, tmp_path)


def test_a_large_vocabulary_needs_wider_numbers() -> None:
    for size, dtype in ((2**16, "uint16"), (2**16 + 1, "uint32")):
        tokenizer = MagicMock(cls_token_id=CLS, sep_token_id=SEP, pad_token_id=PAD)
        tokenizer.__len__.return_value = size
        assert row_layout(tokenizer, 16) == RowLayout(16, CLS, SEP, PAD, dtype)
