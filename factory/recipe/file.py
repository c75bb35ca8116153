"""Read a recipe from TOML and --set overrides, and report all problems at once."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from factory.errors import RecipeError
from factory.recipe.recipe import Recipe


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and apply `key.path=value` overrides.

    Raises:
        RecipeError: the file is missing, not TOML, or any setting is unknown or wrong;
            the message lists every problem with its path and the nearest known key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RecipeError(str(path), [_missing_file(path)]) from error
    except IsADirectoryError as error:
        raise RecipeError(str(path), ["is a folder; give a recipe file"]) from error
    except OSError as error:
        raise RecipeError(str(path), [f"cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise RecipeError(str(path), [f"not UTF-8 ({error.reason}); save it as UTF-8"]) from error
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(str(path), [f"not valid TOML: {error}; correct that line"]) from error
    for override in overrides:
        _apply_override(tree, override)
    return parse_recipe(tree, source=str(path))


def parse_recipe(tree: Mapping[str, Any], source: str = "recipe") -> Recipe:
    """Validate a nested mapping as a recipe.

    Raises:
        RecipeError: as `load_recipe`.
    """
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(source, [_describe(detail) for detail in error.errors()]) from error


def recipe_schema() -> dict[str, Any]:
    """The recipe's JSON Schema, for editors."""
    return Recipe.model_json_schema()


def known_keys(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[str]:
    """All dotted keys of a recipe, sections included."""
    for name, field in model.model_fields.items():
        yield prefix + name
        section = section_type(field.annotation)
        if section is not None:
            yield from known_keys(section, f"{prefix}{name}.")


def _missing_file(path: Path) -> str:
    siblings = [file.name for file in path.parent.glob("*.toml")] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, siblings, n=1)
    hint = f"; did you mean {near[0]}?" if near else "; `factory init` writes one"
    return f"no such file{hint}"


def section_type(annotation: object) -> type[BaseModel] | None:
    """The class of a section, optional or not; None for other types."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _describe(detail: ErrorDetails) -> str:
    """One line for one problem, without pydantic's internal union branches in the path."""
    location = [str(part) for part in detail["loc"]]
    known = set(known_keys())
    for length in range(1, len(location)):
        key = ".".join(location[:length])
        if key in known and not any(other.startswith(f"{key}.") for other in known):
            location = location[:length]
            break
    path = ".".join(location) or "recipe"
    if detail["type"] == "extra_forbidden":
        near = nearest_key(path)
        return f"{path}: unknown key" + (f"; did you mean {near}?" if near else "")
    if detail["type"] == "missing":
        return f"{path}: required and missing"
    message = detail["msg"].removeprefix("Value error, ")
    given = detail["input"]
    shown = (
        "" if isinstance(given, dict | BaseModel) else f" (given: {json.dumps(given, default=str)})"
    )
    return f"{path}: {message}{shown}"


def nearest_key(path: str) -> str | None:
    """The known key closest to `path`: with the same name, in the same section, or any.

    Only the last parts are compared: with a common section, any two keys would look similar.
    """
    section, _, name = path.rpartition(".")
    below_first = sorted(known_keys(), key=lambda key: not key.startswith(f"{section}."))
    keys = {key: key.rpartition(".")[2] for key in below_first}
    same_name = {key: last for key, last in keys.items() if last == name}
    same_section = {key: last for key, last in keys.items() if key.rpartition(".")[0] == section}
    for pool in (same_name, same_section, keys):
        near = difflib.get_close_matches(name, pool.values(), n=1, cutoff=0.6)
        if near:
            return next(key for key, last in pool.items() if last == near[0])
    return None


def _apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one `key.path=value` in the nested mapping; a value that is not TOML is a string."""
    key, equals, value = override.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        raise RecipeError(f"--set {override}", ["expected KEY.PATH=VALUE"])
    node = tree
    for part in parts[:-1]:
        child = node.setdefault(part, {})
        if not isinstance(child, dict):
            raise RecipeError(f"--set {override}", [f"{part} is a value, not a table"])
        node = child
    try:
        node[parts[-1]] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        node[parts[-1]] = value.strip()
