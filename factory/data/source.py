"""The sources of the data: local files, a local data set folder, or a hub name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from factory.data.formats import FILES_HEADLINE, DataFile, find_format
from factory.data.messages import missing_file
from factory.data.table import UNLABELLED_SPLIT, column_problems, columns_of
from factory.errors import DataError
from factory.recipe.data import DataSettings
from factory.store import sha256_of_directory
from serving.bundle import sha256_file


def local_files(settings: DataSettings, base_directory: Path) -> dict[str, DataFile]:
    """The recipe's labelled files with their formats, by split.

    Raises:
        DataError: a file is missing, empty, or in no known format; all such files together.
    """
    named = {"train": settings.train, "dev": settings.dev, "test": settings.test}
    wanted = [(split, name) for split, name in named.items() if name is not None]
    files = _found(wanted, settings, base_directory)
    return {split: file for (split, _), file in zip(wanted, files, strict=True)}


def unlabelled_files(settings: DataSettings, base_directory: Path) -> list[DataFile]:
    """The recipe's files of unlabelled text, in its order.

    Raises:
        DataError: as `local_files`; or a file holds single texts, and the recipe uses pairs.
    """
    wanted = [(UNLABELLED_SPLIT, name) for name in settings.unlabelled_names]
    files = _found(wanted, settings, base_directory)
    if len(settings.text_columns) == 2:
        columns = " and ".join(repr(name) for name in settings.text_columns)
        problems = [
            f"data.unlabelled: {file.name} holds one text per line, but data.text names two "
            f"columns; give a csv, tsv, jsonl or parquet file with the columns {columns}"
            for file in files
            if file.format.kind == "lines"
        ]
        if problems:
            raise DataError(FILES_HEADLINE, problems)
    return files


def _found(
    named: Sequence[tuple[str, str]], settings: DataSettings, base_directory: Path
) -> list[DataFile]:
    files: list[DataFile] = []
    problems: list[str] = []
    for split, name in named:
        path = base_directory / name
        if not path.is_file():
            problems.append(missing_file(f"data.{split}", name, path))
            continue
        wanted = columns_of(settings, split).wanted
        columns = [column for column, _ in wanted]
        try:
            file = find_format(
                path, name, columns, settings.quoting, lines=split == UNLABELLED_SPLIT
            )
        except DataError as error:
            problems.extend(error.problems)
            continue
        files.append(file)
        if file.columns:
            problems.extend(column_problems(name, file.columns, wanted))
    if problems:
        raise DataError(FILES_HEADLINE, problems)
    return files


def hub_folder(name: str, base_directory: Path, key: str) -> Path | None:
    """The local folder of that name, or None for a name on the hub.

    Args:
        key: the recipe key that holds the name, for messages.

    Raises:
        DataError: the name is a path that does not exist, or `datasets` would read a folder of the
            working directory instead of the hub.
    """
    path = base_directory / name
    if path.is_dir():
        return path
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        problem = missing_file(key, name, path).replace("no such file", "no such folder")
        raise DataError("the data set cannot be used", [problem])
    if Path(name).exists():
        problem = (
            f"{key} {name!r} is not a folder beside the recipe, but {Path(name).resolve()} exists "
            "and would be read instead of the hub; give its path, or run from another directory"
        )
        raise DataError("the data set cannot be used", [problem])
    return None


def source_identity(settings: DataSettings, base_directory: Path) -> dict[str, object]:
    """The source's identity: SHA-256 and format of each file, or hub name and revision.

    Raises:
        DataError: a file is missing, empty, or in no known format.
    """
    if settings.hub is None:
        files = local_files(settings, base_directory)
        return {"files": {split: file_identity(file) for split, file in files.items()}}
    return hub_identity(
        settings.hub, settings.config, settings.revision, base_directory, "data.hub"
    )


def hub_identity(
    name: str, config: str | None, revision: str | None, base_directory: Path, key: str
) -> dict[str, object]:
    """A hub data set's identity: name and revision; for a local folder also its content.

    Raises:
        DataError: see `hub_folder`.
    """
    identity: dict[str, object] = {"hub": name, "config": config, "revision": revision}
    if (folder := hub_folder(name, base_directory, key)) is not None:
        identity["sha256"] = sha256_of_directory(folder)
    return identity


def unlabelled_identity(settings: DataSettings, base_directory: Path) -> dict[str, object] | None:
    """The identity of the unlabelled text; None when there is none.

    Raises:
        DataError: a file is missing, empty, in no known format, or without the pairs of the recipe.
    """
    files = unlabelled_files(settings, base_directory)
    splits = settings.unlabelled_split
    if not files and splits is None:
        return None
    # the order decides which of several equal rows is kept
    return {"files": [file_identity(file) for file in files], "splits": splits}


def file_identity(file: DataFile) -> dict[str, object]:
    """The identity of a file's rows: its bytes, and the format that they are read in."""
    return {"sha256": sha256_file(file.path), "format": asdict(file.format)}
