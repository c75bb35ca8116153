"""The bundle's manifest and its checksums: the contract between factory and serving."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from serving.errors import BundleError

FORMAT: Final = "tinybert-factory-bundle"
FORMAT_VERSION: Final = 1
MANIFEST_NAME = "manifest.json"
TOKENIZER_NAME = "tokenizer.json"

Name = Annotated[str, Meta(min_length=1)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Hex = Annotated[str, Meta(pattern="^[0-9a-f]+$")]
Size = Annotated[int, Meta(ge=0)]
Probability = Annotated[float, Meta(ge=0.0, le=1.0)]
Facts = dict[str, Any]

Task = Literal["classification", "regression", "multilabel"]

_REBUILD = "copy or build the bundle again"


class FileRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file must hash and measure to."""

    sha256: Sha256
    size_bytes: Size


class ModelFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The ONNX file and its calling convention.

    `neighbour_independent` is false when the answer for one text depends on the others of its
    batch, as with dynamic quantization: such a model runs one text at a time.
    """

    file: Name
    form: Name
    inputs: Annotated[list[Name], Meta(min_length=1)]
    output: Name
    opset: Annotated[int, Meta(ge=1)]
    neighbour_independent: bool


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything a server must know of a bundle, and the facts of how it was made.

    `thresholds` has one entry per label of a multilabel bundle, the probability from which the
    label applies; the bundles of the other tasks do not have the field.
    """

    format: Literal["tinybert-factory-bundle"] = FORMAT
    format_version: Literal[1] = FORMAT_VERSION
    name: Name
    version: Hex
    task: Task
    labels: list[Name]
    thresholds: list[Probability] | UnsetType = UNSET
    text_pair: bool
    max_length: Annotated[int, Meta(ge=1)]
    model: ModelFile
    files: dict[str, FileRecord]
    scores: Facts = {}
    measurements: Facts = {}
    gate: list[Facts] = []
    recipe: Facts = {}
    versions: Facts = {}
    lineage: Facts = {}
    data: Facts = {}

    def __post_init__(self) -> None:
        """Check the labels and thresholds against the task.

        Raises:
            ValueError: too few labels, too many, or one twice; another number of thresholds.
        """
        if self.task == "regression" and len(self.labels) != 1:
            raise ValueError(f"regression has one label, labels lists {len(self.labels)}")
        if self.task != "regression" and len(self.labels) < 2:
            raise ValueError(f"{self.task} has two labels or more, got {len(self.labels)}")
        wanted = len(self.labels) if self.task == "multilabel" else None
        given = None if isinstance(self.thresholds, UnsetType) else len(self.thresholds)
        if given != wanted:
            raise ValueError(f"{self.task} has {wanted or 'no'} thresholds, got {given}")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels lists a name twice")


class _Header(msgspec.Struct):
    """The two fields that say whether the rest can be understood."""

    format: str
    format_version: int


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(directory: Path) -> Manifest:
    """Read and check the manifest of a bundle; its files are not touched.

    Raises:
        BundleError: no manifest, another format or version, or a field that is wrong.
    """
    path = Path(directory) / MANIFEST_NAME
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(
            path, [f"cannot be read ({error.strerror})"], "give the directory of a bundle"
        ) from error
    try:
        header = msgspec.json.decode(content, type=_Header)
        if header.format != FORMAT:
            raise BundleError(
                path, [f"format is {header.format!r}, not {FORMAT!r}"], "give a bundle's directory"
            )
        if header.format_version != FORMAT_VERSION:
            raise BundleError(
                path,
                [f"format_version is {header.format_version}, this reads {FORMAT_VERSION}"],
                "install the tinybert-factory that wrote it, or build the bundle again",
            )
        return msgspec.json.decode(content, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(path, [f"not a valid manifest: {error}"], _REBUILD) from error


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write the manifest in one step: readers see the old one or the new one."""
    path = Path(directory) / MANIFEST_NAME
    partial = path.with_name(f".{MANIFEST_NAME}.partial")
    with partial.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def describe_files(directory: Path, relative_paths: Iterable[str]) -> dict[str, FileRecord]:
    """Hash and measure files, in the order given.

    Raises:
        BundleError: files that are missing or outside the directory, all of them.
    """
    paths = list(relative_paths)
    problems = [problem for path in paths if (problem := _path_problem(directory, path))]
    if problems:
        raise BundleError(directory, problems, "list files that stand in this directory")
    return {
        path: FileRecord(
            sha256=sha256_file(Path(directory) / path),
            size_bytes=(Path(directory) / path).stat().st_size,
        )
        for path in paths
    }


def verify_files(directory: Path, manifest: Manifest) -> None:
    """Compare every listed file with its record.

    Raises:
        BundleError: all problems: missing, other size, other content, outside the directory,
            or the model or the tokenizer not listed.
    """
    problems = [
        f"{needed} is needed but not listed in files"
        for needed in (manifest.model.file, TOKENIZER_NAME)
        if needed not in manifest.files
    ]
    for path, record in manifest.files.items():
        problem = _path_problem(directory, path) or _content_problem(directory, path, record)
        if problem:
            problems.append(problem)
    if problems:
        raise BundleError(directory, problems, _REBUILD)


def _path_problem(directory: Path, path: str) -> str | None:
    """Why a listed path cannot be a file of this bundle, or None."""
    pure = PurePosixPath(path)
    plain = pure.as_posix() == path and not pure.is_absolute() and ".." not in pure.parts
    if not plain or path == "." or "\\" in path or "\0" in path:
        return f"{path!r} is not a plain path inside the bundle"
    full = Path(directory) / path
    if not full.resolve().is_relative_to(Path(directory).resolve()):
        return f"{path} links to a place outside the bundle"
    if not full.is_file():
        return f"{path} is missing"
    return None


def _content_problem(directory: Path, path: str, record: FileRecord) -> str | None:
    """How a file differs from its record, or None."""
    full = Path(directory) / path
    try:
        size = full.stat().st_size
        if size != record.size_bytes:
            return f"{path} has {size} bytes, the manifest says {record.size_bytes}"
        digest = sha256_file(full)
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})"
    if digest != record.sha256:
        return f"{path} has sha256 {digest[:12]}, the manifest says {record.sha256[:12]}"
    return None
