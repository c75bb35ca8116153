"""A hook of MkDocs: links to files of the repository outside docs/ become their names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1]
LINK = re.compile(r"\[([^\]]+)\]\((\.\.[^)#\s]*)\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """The page's text; a file that is not there keeps its link, which the build then refuses."""
    folder = (DOCS / page.file.src_uri).parent

    def named(found: re.Match[str]) -> str:
        target = (folder / found[2]).resolve()
        inside = target.is_relative_to(DOCS)
        if inside or not target.exists():
            return found[0]
        return f"{found[1]} (`{target.relative_to(DOCS.parent).as_posix()}`)"

    return LINK.sub(named, markdown)
