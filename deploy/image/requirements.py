"""Print requirements of pyproject.toml, one a line, so that an image installs them before any code.

    python requirements.py pyproject.toml server cpu
    python requirements.py pyproject.toml factory build cpu serve demo

`server` is what serving/ imports, with the extras named; `factory` is all dependencies, with the
extras named.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

# What serving/ imports of the project's own dependencies; the rest of it is in the extra `serve`.
OF_THE_SERVER = ("msgspec", "numpy", "tokenizers")


def requirements(pyproject: Path, what: str, extras: list[str]) -> list[str]:
    """Lines for `pip install -r`.

    Raises:
        KeyError: an extra that pyproject.toml does not have.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    dependencies: list[str] = project["dependencies"]
    if what == "server":
        names = {re.split(r"[^\w.-]", line)[0]: line for line in dependencies}
        dependencies, extras = [names[name] for name in OF_THE_SERVER], ["serve", *extras]
    return [*dependencies, *(line for e in extras for line in project["optional-dependencies"][e])]


if __name__ == "__main__":
    lines = requirements(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
    sys.stdout.write("\n".join(lines) + "\n")
