"""Where in a recipe file a key stands, which `tomllib` does not tell."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PART = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
DOTTED = rf"{PART}(?:\s*\.\s*{PART})*"
TABLE = re.compile(rf"^\s*\[\[?\s*({DOTTED})\s*\]")
KEY = re.compile(rf"^\s*({DOTTED})\s*=")
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(?:\.[A-Za-z_][A-Za-z0-9_-]*)*")
TOML_LINE = re.compile(r"\(at line (\d+), column \d+\)")


def line_of_problem(file: Path, key: str, message: str) -> int | None:
    """The line a problem is about: that of the key it names, or of the nearest table around it.

    Args:
        key: dotted, or empty or some headline when only the message may name one.

    Returns:
        Counted from 1; None when the file cannot be read or nothing in it is named.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    broken = TOML_LINE.search(message)
    if broken:
        return int(broken[1])
    lines = key_lines(text)
    # a bare word of the message may be a table; a key such as `name` is too common a word
    words = [word for word in WORD.findall(message) if any(k.startswith(f"{word}.") for k in lines)]
    dotted = [word for word in WORD.findall(message) if "." in word]
    named = [message.partition(":")[0], key, *dotted, *words]
    for name in named:
        if name in lines:
            return lines[name]
    for name in named:
        table = name.rpartition(".")[0]
        if table in lines:
            return lines[table]
    return None


def key_lines(text: str) -> dict[str, int]:
    """The first line of every dotted key and table of a TOML text, from 1.

    A text that is broken further down keeps the keys above.
    """
    found: dict[str, int] = {}
    table = ""
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        header, key = TABLE.match(line), KEY.match(line)
        if not (header or key) or not _complete("".join(lines[: number - 1])):
            continue  # inside a string or list of several lines, or nothing of interest
        if header:
            table = _plain(header[1])
            found.setdefault(table, number)
        elif key:
            name = _plain(key[1])
            found.setdefault(f"{table}.{name}" if table else name, number)
    return found


def _complete(text: str) -> bool:
    """Whether a text ends between two statements."""
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _plain(dotted: str) -> str:
    return ".".join(part.strip("\"'") for part in re.findall(PART, dotted))
