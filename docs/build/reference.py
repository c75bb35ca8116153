"""Writes docs/reference/ from the code: recipe keys, commands, bundle manifest, Python API.

python docs/build/reference.py          writes the files
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import msgspec
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import factory
import serving
from factory.cli.main import main
from factory.recipe.file import section_type
from factory.recipe.recipe import Recipe
from serving.bundle import FileRecord, Manifest, ModelFile
from serving.openapi import _operations
from serving.settings import describe_settings

REFERENCE = Path(__file__).parents[1] / "reference"
NOTE = "<!-- written by docs/build/reference.py; change the code, then run it -->\n\n"


def pages() -> dict[str, str]:
    """The text of every generated page by file name."""
    return {
        "recipe-keys.md": NOTE + "# Recipe keys\n\n" + "\n\n".join(_sections(Recipe, "")) + "\n",
        "commands.md": NOTE + _commands(),
        "manifest.md": NOTE + _manifest(),
        "http.md": NOTE + _http(),
        "python.md": NOTE + _python(),
    }


def _sections(model: type[BaseModel], prefix: str) -> Iterator[str]:
    title = f"## {prefix.rstrip('.')}" if prefix else "## top"
    rows = ["| key | values | default | |", "|---|---|---|---|"]
    inner = []
    schema = model.model_json_schema(ref_template="{model}")["properties"]
    for name, field in model.model_fields.items():
        section = section_type(field.annotation)
        if section is not None:
            inner.append((section, f"{prefix}{name}."))
            continue
        default = "required" if field.default is PydanticUndefined else _code(field.default)
        rows.append(
            f"| `{name}` | {_cell(_kind(schema[name]))} | {default} "
            f"| {_cell(field.description or '')} |"
        )
    words = (model.__doc__ or "").strip().splitlines()[0]
    if len(rows) > 2:
        yield "\n".join([title, "", words, "", *rows])
    for section, path in inner:
        yield from _sections(section, path)


def _kind(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        kinds = [_kind(one) for one in schema["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return ", ".join(f'`"{value}"`' for value in schema["enum"])
    if "const" in schema:
        return f'`"{schema["const"]}"`'
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    names = {"string": "text", "integer": "whole number", "number": "number", "boolean": "boolean"}
    kind = names.get(schema.get("type", ""), "value")
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is not None and high is not None:
        return f"{kind} {low:g} to {high:g}"
    if low is not None:
        return f"{kind} {'from' if 'minimum' in schema else 'above'} {low:g}"
    return kind


def _code(value: object) -> str:
    if value is None:
        return "unset"
    shown = str(value).lower() if isinstance(value, bool) else value
    return f'`"{value}"`' if isinstance(value, str) else f"`{shown}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _commands() -> str:
    parts = ["# Commands\n"]
    for name, command in sorted(main.commands.items()):
        command = copy.copy(command)
        command._help_option = None  # kept from whoever asked first, with that one's names
        context = click.Context(
            command,
            info_name=f"factory {name}",
            terminal_width=90,
            help_option_names=["-h", "--help"],  # as in the group
        )
        parts.append(f"## {name}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def _manifest() -> str:
    parts = ["# Fields of manifest.json\n\nWhat they mean: [the bundle](../bundle.md).\n"]
    for kind in (Manifest, ModelFile, FileRecord):
        rows = ["| field | type | required |", "|---|---|---|"]
        for field in msgspec.structs.fields(kind):
            (shape,) = msgspec.json.schema_components([field.type])[0]
            named = shape.get("type") or ("object" if "$ref" in shape else "")
            named = named or "one of " + ", ".join(map(str, shape.get("enum", ["values"])))
            rows.append(f"| `{field.name}` | {named} | {'yes' if field.required else 'no'} |")
        words = inspect.cleandoc(kind.__doc__ or "").splitlines()[0]
        parts.append("\n".join([f"## {kind.__name__}", "", words, "", *rows, ""]))
    return "\n".join(parts)


def _http() -> str:
    """The routes as the server's OpenAPI document describes them, and its settings."""
    model = SimpleNamespace(
        text_pair=False, name="NAME", version="VERSION", labels=("a", "b"), task="classification"
    )
    parts = [
        "# HTTP\n\nThe whole document, with the served model's labels and limits, is at "
        "`/openapi.json` of a running server. What the routes mean: [the server](../serving.md).\n",
        "| route | | refusals |\n|---|---|---|",
    ]
    for route, operation in _operations(model).items():  # type: ignore[arg-type]
        refusals = ", ".join(map(str, operation.refusals))
        parts.append(f"| `{route}` | {operation.summary} | {refusals} |")
    parts.append("\n## Settings\n\n```text\n" + describe_settings() + "\n```\n")
    return "\n".join(parts)


def _python() -> str:
    parts = [
        "# Python\n\nNothing is imported before a name is used: `import factory` is free. Results "
        "show themselves as tables in a notebook.\n"
    ]
    for module in (factory, serving):
        parts.append(f"## {module.__name__}\n")
        for name in module.__all__:
            thing = getattr(module, name)
            words = inspect.cleandoc(thing.__doc__ or "")
            if inspect.isfunction(thing):
                sign = (
                    str(inspect.signature(thing))
                    .replace("'", "")
                    .replace("PosixPath(runs)", '"runs"')
                )
                parts.append(f"### {name}\n\n```python\n{name}{sign}\n```\n")
                parts.append(f"```text\n{words}\n```\n")
            else:
                parts.append(f"### {name}\n\n{words.splitlines()[0]}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    REFERENCE.mkdir(exist_ok=True)
    for name, text in pages().items():
        (REFERENCE / name).write_text(text, encoding="utf-8")
