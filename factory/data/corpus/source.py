"""Where the raw corpus comes from: local files in their order, or a hub data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from factory.data.source import Format, format_of, hub_folder, missing_file
from factory.errors import DataError
from factory.recipe.training import GeneralSettings
from factory.store import sha256_of_directory
from serving.bundle import sha256_file

HEADLINE = "the corpus cannot be used"


@dataclass(frozen=True, slots=True)
class CorpusFile:
    """One file of the corpus.

    Args:
        name: the path as the recipe gives it; messages use it.
        gzipped: whether it is compressed.
    """

    name: str
    path: Path
    format: Format
    gzipped: bool


def corpus_files(settings: GeneralSettings, base_directory: Path) -> list[CorpusFile]:
    """The recipe's corpus files, found and of a known format; none for a hub data set.

    Raises:
        DataError: a file is missing or has an unknown ending; all such files together.
    """
    files: list[CorpusFile] = []
    problems: list[str] = []
    for name in settings.corpus_names:
        path = base_directory / name
        file_format, gzipped = format_of(path, ("txt", "jsonl"))
        if not path.is_file():
            problems.append(missing_file("general.corpus", name, path))
        elif file_format is not None:
            files.append(CorpusFile(name, path, file_format, gzipped))
        else:
            problems.append(
                f"general.corpus: {name} has none of the endings .txt, .jsonl (.gz may follow); "
                "rename or convert it"
            )
    if problems:
        raise DataError(HEADLINE, problems)
    return files


def corpus_folder(settings: GeneralSettings, base_directory: Path) -> Path | None:
    """The local folder `general.hub` names, or None when it is a name on the hub.

    Raises:
        DataError: as `factory.data.source.hub_folder`.
    """
    assert settings.hub is not None, "only called for a hub source"
    return hub_folder(settings.hub, base_directory, "general.hub")


def corpus_identity(settings: GeneralSettings, base_directory: Path) -> dict[str, object]:
    """What identifies the corpus: SHA-256 of each file in order, or name and revision on the hub.

    Raises:
        DataError: a file or folder is missing, or a file has an unknown ending.
    """
    if settings.hub is None:
        files = corpus_files(settings, base_directory)
        return {"files": [[file.format, sha256_file(file.path)] for file in files]}
    folder = corpus_folder(settings, base_directory)
    identity: dict[str, object] = {
        "hub": settings.hub,
        "config": settings.config,
        "revision": settings.revision,
        "split": settings.split,
    }
    if folder is not None:
        identity["sha256"] = sha256_of_directory(folder)
    return identity
