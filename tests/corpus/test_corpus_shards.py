"""Shards: the same bytes always, also after a kill; bounded memory; a corpus of nothing."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import FILLERS, save_tiny, tiny_bert, tiny_tokenizer

from factory.data.corpus import shards as shards_module
from factory.data.corpus.packing import RowLayout
from factory.data.corpus.reading import Piece
from factory.data.corpus.rows import open_rows
from factory.data.corpus.shards import write_shards
from factory.data.corpus.tokenize import check_corpus, make_corpus, row_layout
from factory.errors import DataError
from factory.models.source import ModelSource
from factory.recipe.training import GeneralSettings

LAYOUT = RowLayout(8, 2, 3, 0, "uint16")
PIECES = [
    Piece(
        " ".join(str(5 + (7 * number + word) % 90) for word in range(number % 6)), number % 9 == 0
    )
    for number in range(60)
]


class PowerCut(Exception):
    """What interrupts a run in these tests."""


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


@settings(deadline=None, max_examples=40)
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
@pytest.mark.parametrize("nth", [1, 2, 4])
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

    index = write_shards(tmp_path, endless(), tokenize, LAYOUT, 10_000)
    assert index["tokens"] == 10_000
    # three tokens and a separator each; one batch may be read to see that there is enough
    assert 2500 <= tokenized <= 2504
    assert read <= 2508


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


@pytest.mark.parametrize("content", ["", "\n \n\n", "\x00\n"])
def test_a_corpus_without_a_token_is_refused(
    tmp_path: Path, source: ModelSource, content: str
) -> None:
    (tmp_path / "a.txt").write_text(content, encoding="utf-8")
    settings = GeneralSettings(corpus="a.txt", max_length=16)
    with pytest.raises(DataError, match=r"a\.txt: holds no text"):
        make_corpus(tmp_path, settings, source, tmp_path)


def test_a_corpus_of_less_than_a_batch_is_refused() -> None:
    settings = GeneralSettings(corpus=["a.txt", "b.txt"], batch_size=8, max_tokens=500)
    check_corpus(8, settings)
    with pytest.raises(DataError, match=r"a\.txt, b\.txt: 7 rows of 128 tokens.*max_tokens = 500"):
        check_corpus(7, settings)


def test_a_large_vocabulary_needs_wider_numbers() -> None:
    tokenizer = tiny_tokenizer()
    assert row_layout(tokenizer, 16).dtype == "uint16"
    tokenizer.add_tokens([f"new{number}" for number in range(2**16)])
    assert row_layout(tokenizer, 16).dtype == "uint32"
