"""A raw corpus as a stream of pieces of documents, one in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory.data.formats import DataFile, FileFormat, Kind, is_gzipped
from factory.data.hub import library_errors
from factory.data.messages import first_few_of_names, missing_file, nearest, quote
from factory.data.reading import BadRow, Row, read_rows
from factory.data.source import file_identity, hub_folder
from factory.errors import DataError
from factory.recipe.training import GeneralSettings
from factory.store import sha256_of_directory

HEADLINE = "the corpus cannot be used"


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
        return _hub_pieces(settings, hub_folder(settings.hub, base_directory, "general.hub"))
    return _file_pieces(settings, corpus_files(settings, base_directory))


def corpus_files(settings: GeneralSettings, base_directory: Path) -> list[DataFile]:
    """The recipe's corpus files; none for a hub data set.

    Their names tell the format and they must be UTF-8, since finding out means reading them whole.

    Raises:
        DataError: a file is missing or has an unknown ending; all such files together.
    """
    files: list[DataFile] = []
    problems: list[str] = []
    for name in settings.corpus_names:
        path = base_directory / name
        ending = Path(name.lower().removesuffix(".gz")).suffix
        if not path.is_file():
            problems.append(missing_file("general.corpus", name, path))
        elif ending not in (".txt", ".jsonl"):
            problems.append(
                f"general.corpus: {name} has none of the endings .txt, .jsonl (.gz may follow); "
                "rename or convert it"
            )
        else:
            kind: Kind = "lines" if ending == ".txt" else "jsonl"
            form = FileFormat(kind, is_gzipped(path, name), "utf-8-sig")
            files.append(DataFile(path, name, form))
    if problems:
        raise DataError(HEADLINE, problems)
    return files


def corpus_identity(settings: GeneralSettings, base_directory: Path) -> dict[str, object]:
    """What identifies the corpus: SHA-256 of each file in order, or name and revision on the hub.

    Raises:
        DataError: a file or folder is missing, or a file has an unknown ending.
    """
    if settings.hub is None:
        return {"files": [file_identity(file) for file in corpus_files(settings, base_directory)]}
    folder = hub_folder(settings.hub, base_directory, "general.hub")
    identity: dict[str, object] = {
        "hub": settings.hub,
        "config": settings.config,
        "revision": settings.revision,
        "split": settings.split,
    }
    if folder is not None:
        identity["sha256"] = sha256_of_directory(folder)
    return identity


def _file_pieces(settings: GeneralSettings, files: Iterable[DataFile]) -> Iterator[Piece]:
    for file in files:
        rows = (_good(row, file) for row in read_rows(file))
        if file.format.kind == "jsonl":
            for row in rows:
                place = f"{file.name}, line {row.number}"
                yield Piece(_text_of(row.values, place, settings.text), starts=True)
            continue
        lines = (row.values["text"] for row in rows)
        if settings.documents == "lines":
            yield from (Piece(line, starts=True) for line in lines if line.strip())
        else:
            yield from _between_blank_lines(lines)


def _good(row: Row | BadRow, file: DataFile) -> Row:
    if isinstance(row, BadRow):
        raise DataError(HEADLINE, [f"{file.name}, line {row.number}: {row.reason}"])
    return row


def _between_blank_lines(lines: Iterable[str]) -> Iterator[Piece]:
    starts = True
    for line in lines:
        if line.strip():
            yield Piece(line, starts)
            starts = False
        else:
            starts = True


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
    return value


def _hub_pieces(settings: GeneralSettings, folder: Path | None) -> Iterator[Piece]:
    source = f"{settings.hub}, split {settings.split}"
    with library_errors(source):
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
