"""A plain HTML table, as notebooks show it."""

from __future__ import annotations

import html
from collections.abc import Sequence


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """Head and rows as a table; every text is escaped."""

    def row(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"

    body = "".join(row(cells, "td") for cells in rows)
    title = f"<caption>{html.escape(caption)}</caption>"
    return f"<table>{title}<thead>{row(head, 'th')}</thead><tbody>{body}</tbody></table>"
