"""Raw corpora as a stream of pieces of documents, one in memory at a time."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory.data import loading
from factory.data.corpus.source import HEADLINE, CorpusFile, corpus_files, corpus_folder
from factory.data.telling import first_few_of_names, nearest, quote
from factory.errors import DataError
from factory.recipe.training import GeneralSettings


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that stands together: a document, or one line of a longer one.

    Args:
        starts: whether a new document begins here.
    """

    text: str
    starts: bool


def read_pieces(settings: GeneralSettings, base_directory: Path) -> Iterator[Piece]:
    """Every piece of the corpus in its order; holds one line, or one row, at a time.

    Raises:
        DataError: a file is missing, broken, not UTF-8, or a line or row has no text; with its
            place.
    """
    if settings.hub is not None:
        return _hub_pieces(settings, corpus_folder(settings, base_directory))
    return _file_pieces(settings, corpus_files(settings, base_directory))


def _file_pieces(settings: GeneralSettings, files: Iterable[CorpusFile]) -> Iterator[Piece]:
    for file in files:
        lines = _decoded_lines(file)
        if file.format == "jsonl":
            yield from (
                Piece(_json_text(line, f"{file.name}, line {number}", settings.text), starts=True)
                for number, line in lines
            )
        elif settings.documents == "lines":
            yield from (Piece(line, starts=True) for _, line in lines if line.strip())
        else:
            yield from _between_blank_lines(line for _, line in lines)


def _between_blank_lines(lines: Iterable[str]) -> Iterator[Piece]:
    starts = True
    for line in lines:
        if line.strip():
            yield Piece(line, starts)
            starts = False
        else:
            starts = True


def _decoded_lines(file: CorpusFile) -> Iterator[tuple[int, str]]:
    """Lines without their ends, numbered from 1."""
    number = 0
    try:
        with gzip.open(file.path) if file.gzipped else file.path.open("rb") as handle:
            for number, line in enumerate(handle, start=1):
                content = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                yield number, content.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        problem = (
            f"{file.name}, line {number}: not UTF-8 (byte 0x{error.object[error.start]:02x}); "
            "save the file as UTF-8"
        )
        raise DataError(HEADLINE, [problem]) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        problem = f"{file.name}, after line {number}: broken gzip ({error}); fetch the file again"
        raise DataError(HEADLINE, [problem]) from error


def _json_text(line: str, place: str, column: str) -> str:
    """The text of one JSON object.

    Raises:
        DataError: no object, no such key, or something else than text under it.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        problem = f"{place}: not a JSON object ({reason}): {quote(line)}"
        raise DataError(HEADLINE, [problem]) from error
    if not isinstance(row, dict):
        raise DataError(HEADLINE, [f"{place}: not a JSON object: {quote(line)}"])
    return _text_of(row, place, column)


def _text_of(row: Mapping[str, Any], place: str, column: str) -> str:
    if column not in row:
        there = first_few_of_names(list(row))
        problem = (
            f"{place}: no key {column!r}{nearest(column, row)}; the keys are {there}; "
            "set general.text to one of them"
        )
        raise DataError(HEADLINE, [problem])
    value = row[column]
    if not isinstance(value, str):
        problem = f"{place}: {column!r} holds {quote(value)}, not text"
        raise DataError(HEADLINE, [problem])
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        problem = f"{place}: {column!r} holds half of a surrogate pair, which is no character"
        raise DataError(HEADLINE, [problem]) from error
    return value


def _hub_pieces(settings: GeneralSettings, folder: Path | None) -> Iterator[Piece]:
    source = f"{settings.hub}, split {settings.split}"
    with loading.library_errors(source):
        import datasets

        rows = datasets.load_dataset(
            str(settings.hub if folder is None else folder.resolve()),
            settings.config,
            split=settings.split,
            revision=settings.revision if folder is None else None,
            streaming=True,
        )
        for number, row in enumerate(rows, start=1):
            text = _text_of(row, f"{source}, row {number}", settings.text)
            yield Piece(text, starts=True)
