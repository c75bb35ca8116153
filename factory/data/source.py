"""Where the data comes from: local files, a local data set folder, or a hub name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from factory.data.table import UNLABELLED_SPLIT
from factory.errors import DataError
from factory.recipe.data import DataSettings
from factory.store import sha256_of_directory
from serving.bundle import sha256_file

Format = Literal["csv", "tsv", "jsonl", "parquet", "txt"]
FORMATS: tuple[Format, ...] = ("csv", "tsv", "jsonl", "parquet")
FILES_HEADLINE = "the data files cannot be used"
UNLABELLED_FORMATS: tuple[Format, ...] = ("txt", *FORMATS)


@dataclass(frozen=True, slots=True)
class LocalFile:
    """One file of the recipe.

    Args:
        split: train, dev, test or unlabelled.
        name: the path as the recipe gives it; messages use it.
        path: where it is.
        format: how it is written, without compression.
        gzipped: whether it is compressed.
    """

    split: str
    name: str
    path: Path
    format: Format
    gzipped: bool


def local_files(settings: DataSettings, base_directory: Path) -> list[LocalFile]:
    """The recipe's files, found and of a known format.

    Raises:
        DataError: a file is missing or has an unknown ending; all such files together.
    """
    named = {"train": settings.train, "dev": settings.dev, "test": settings.test}
    wanted = [(split, name) for split, name in named.items() if name is not None]
    return _found(wanted, FORMATS, base_directory)


def unlabelled_files(settings: DataSettings, base_directory: Path) -> list[LocalFile]:
    """The recipe's files of unlabelled text, in its order.

    Raises:
        DataError: as `local_files`, or lines of a txt file where pairs are needed.
    """
    wanted = [(UNLABELLED_SPLIT, name) for name in settings.unlabelled_names]
    files = _found(wanted, UNLABELLED_FORMATS, base_directory)
    if len(settings.text_columns) == 2:
        columns = " and ".join(repr(name) for name in settings.text_columns)
        problems = [
            f"data.unlabelled: {file.name} holds one text per line, but data.text asks for pairs; "
            f"give a csv, tsv, jsonl or parquet file with the columns {columns}"
            for file in files
            if file.format == "txt"
        ]
        if problems:
            raise DataError(FILES_HEADLINE, problems)
    return files


def _found(
    wanted: Sequence[tuple[str, str]], formats: Sequence[Format], base_directory: Path
) -> list[LocalFile]:
    files: list[LocalFile] = []
    problems: list[str] = []
    for split, name in wanted:
        path = base_directory / name
        file_format, gzipped = format_of(path, formats)
        if not path.is_file():
            problems.append(missing_file(f"data.{split}", name, path))
        elif file_format is None:
            problems.append(_unknown_format(split, name, formats))
        else:
            files.append(LocalFile(split, name, path, file_format, gzipped))
    if problems:
        raise DataError(FILES_HEADLINE, problems)
    return files


def hub_folder(name: str, base_directory: Path, key: str) -> Path | None:
    """The folder a hub name means, or None when it is a name on the hub.

    Args:
        key: the recipe key that holds the name, for messages.

    Raises:
        DataError: it is written as a path, and nothing is there; or the library would take
            a folder of the working directory for it.
    """
    path = base_directory / name
    if path.is_dir():
        return path
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        problem = missing_file(key, name, path).replace("no such file", "no such folder")
        raise DataError("the data set cannot be used", [problem])
    if Path(name).exists():
        problem = (
            f"{key} {name!r} is no folder beside the recipe, but {Path(name).resolve()} exists "
            "and would be read in place of the hub; write the path, or run from another directory"
        )
        raise DataError("the data set cannot be used", [problem])
    return None


def source_identity(settings: DataSettings, base_directory: Path) -> dict[str, object]:
    """What identifies the source: SHA-256 of each file, or hub name, config and revision.

    Raises:
        DataError: a file is missing or has an unknown ending.
    """
    if settings.hub is None:
        files = local_files(settings, base_directory)
        return {"files": {file.split: sha256_file(file.path) for file in files}}
    folder = hub_folder(settings.hub, base_directory, "data.hub")
    identity: dict[str, object] = {
        "hub": settings.hub,
        "config": settings.config,
        "revision": settings.revision,
    }
    if folder is not None:
        identity["sha256"] = sha256_of_directory(folder)
    return identity


def unlabelled_identity(settings: DataSettings, base_directory: Path) -> dict[str, object] | None:
    """What identifies the unlabelled text beside the labelled source; None when there is none.

    Raises:
        DataError: a file is missing, has an unknown ending, or cannot hold what is needed.
    """
    files = unlabelled_files(settings, base_directory)
    splits = settings.unlabelled_split
    if not files and splits is None:
        return None
    # how a file is read follows from its ending, and which repetition stays from the order
    named = [{"format": file.format, "sha256": sha256_file(file.path)} for file in files]
    return {"files": named, "splits": splits}


def format_of(path: Path, formats: Sequence[Format]) -> tuple[Format | None, bool]:
    """The format a file's ending names, None if none of `formats`; and whether it is gzipped."""
    endings = [ending.lower().lstrip(".") for ending in path.suffixes]
    gzipped = endings[-1:] == ["gz"]
    if gzipped:
        endings.pop()
    found = [name for name in formats if endings[-1:] == [name]]
    return (found[0] if found else None), gzipped


def missing_file(key: str, name: str, path: Path) -> str:
    """What to say of a file that is not there, with similar names that are.

    Args:
        key: the recipe key that holds the name.
    """
    if path.is_dir():
        return f"{key}: {name} is a folder; name a file in it"
    if not path.parent.is_dir():
        return f"{key}: no such file {name}: the folder {path.parent} does not exist"
    there = sorted(entry.name for entry in path.parent.iterdir())
    close = difflib.get_close_matches(path.name, there, n=3, cutoff=0.5)
    hint = f"; similar there: {', '.join(close)}" if close else "; nothing there has a similar name"
    return f"{key}: no such file {name} in {path.parent}{hint}"


def _unknown_format(setting: str, name: str, formats: Sequence[Format]) -> str:
    endings = ", ".join(f".{known}" for known in formats)
    if Path(name.removesuffix(".gz")).suffix.lower() in (".json", ".ndjson"):
        hint = "one JSON object per line goes into a file with the ending .jsonl"
    else:
        hint = "rename or convert it"
    return f"data.{setting}: {name} has none of the endings {endings} (.gz may follow); {hint}"
