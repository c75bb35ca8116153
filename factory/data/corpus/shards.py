"""Packed rows in files on disk: written shard by shard, resumed after the last finished one."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.data.corpus.packing import SPECIAL_TOKENS, RowLayout, TokenStream, full_rows, last_row
from factory.data.corpus.reading import Piece
from factory.runtime.progress import bar
from factory.store import read_json, write_json

INDEX_NAME = "index.json"
# A shard is written when so many tokens wait; after a kill at most this much is tokenized again.
SHARD_TOKENS = 2**22
# Pieces tokenized at once, on all cores; a batch ends at whichever comes first.
BATCH_PIECES = 1024
BATCH_CHARACTERS = 2**20

Tokenize = Callable[[Sequence[str]], Sequence[Sequence[int]]]


def write_shards(
    directory: Path,
    pieces: Iterable[Piece],
    tokenize: Tokenize,
    layout: RowLayout,
    max_tokens: int | None,
) -> dict[str, Any]:
    """Tokenize and pack all pieces into `directory`, going on where an interrupted run stopped.

    The index is the last thing written for each shard, and says how far into the corpus the
    shards reach: the result is the same bytes however often the run was interrupted.

    Args:
        pieces: the whole corpus from its beginning; what the shards hold is skipped.

    Returns:
        The finished index.
    """
    index = _read_index(directory, layout)
    stream = _restore(index, layout, max_tokens)
    todo = islice(iter(pieces), index["pieces"], None)
    with bar("tokenizing", max_tokens, "token", initial=stream.tokens) as progress:
        for batch in _batches(todo):
            if stream.full:
                break
            before = stream.tokens
            ids_of_batch = tokenize([piece.text for piece in batch])
            for piece, ids in zip(batch, ids_of_batch, strict=True):
                stream.add(ids, piece.starts)
            index["pieces"] += len(batch)
            progress.advance(stream.tokens - before)
            if len(stream.buffer) >= SHARD_TOKENS:
                _publish(directory, index, stream, full_rows(stream.cut(layout.content), layout))
    _publish_rest(directory, index, stream, layout)
    return index


def _publish_rest(
    directory: Path, index: dict[str, Any], stream: TokenStream, layout: RowLayout
) -> None:
    rows = full_rows(stream.cut(layout.content), layout)
    if stream.buffer:
        index["last_row_tokens"] = len(stream.buffer) + SPECIAL_TOKENS
        rows = np.concatenate([rows, last_row(stream.buffer, layout)])
        del stream.buffer[:]
    if len(rows):
        _publish(directory, index, stream, rows)


def shard_file(directory: Path, number: int) -> Path:
    """The file of one shard, counted from 0."""
    return directory / f"shard-{number:05d}.npy"


def _batches(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    batch: list[Piece] = []
    characters = 0
    for piece in pieces:
        batch.append(piece)
        characters += len(piece.text)
        if len(batch) >= BATCH_PIECES or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _read_index(directory: Path, layout: RowLayout) -> dict[str, Any]:
    if (directory / INDEX_NAME).is_file():
        return read_json(directory / INDEX_NAME)
    return {
        "length": layout.length,
        "pad_id": layout.pad_id,
        "shards": [],
        "last_row_tokens": layout.length,
        "pieces": 0,
        "tokens": 0,
        "documents": 0,
        "between": True,
        "buffer": [],
    }


def _restore(index: dict[str, Any], layout: RowLayout, max_tokens: int | None) -> TokenStream:
    return TokenStream(
        layout.separator_id,
        max_tokens,
        index["tokens"],
        index["documents"],
        index["between"],
        array("I", index["buffer"]),
    )


def _publish(
    directory: Path,
    index: dict[str, Any],
    stream: TokenStream,
    rows: NDArray[np.unsignedinteger],
) -> None:
    """Write a shard aside and rename it, then the index that counts it."""
    file = shard_file(directory, len(index["shards"]))
    temporary = file.with_name(f".{file.name}.tmp")
    with temporary.open("wb") as handle:
        np.save(handle, rows, allow_pickle=False)
    temporary.replace(file)
    index["shards"].append(len(rows))
    index["tokens"], index["documents"] = stream.tokens, stream.documents
    index["between"], index["buffer"] = stream.between, stream.buffer.tolist()
    write_json(directory / INDEX_NAME, index)
