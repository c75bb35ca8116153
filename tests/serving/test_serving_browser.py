"""The server's pages in headless Chromium: by keyboard, on phone and desk, in light and dark."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from server_under_test import running

FOLDER = Path(__file__).parents[1] / "report" / "browser"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
    pytest.mark.skipif(
        not (FOLDER / "node_modules").is_dir(),
        reason="run npm ci in tests/report/browser first",
    ),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed; or set CHROMIUM"),
]


def look(url: str, *text: str) -> list[dict[str, Any]]:
    """What check.mjs found, one entry per width and colour scheme."""
    result = subprocess.run(
        ["node", str(FOLDER / "check.mjs"), url, *text],
        env={**os.environ, "CHROMIUM": str(CHROMIUM)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    views: list[dict[str, Any]] = json.loads(result.stdout)
    assert len(views) == 4
    for view in views:
        assert view["messages"] == []
        assert view["outside"] == []
        assert view["overflow"] <= 0
        assert view["violations"] == []
    return views


@pytest.mark.parametrize("arguments", [{}, {"task": "multilabel", "thresholds": [0.5, 0.4, 0.3]}])
def test_the_page_answers_to_the_keyboard(
    make_bundle: Callable[..., Path], arguments: dict[str, Any]
) -> None:
    with running(make_bundle(**arguments)) as server:
        for view in look(server.url, "a good film"):
            assert len(view["answers"]) == 3
            assert all("%" in line for line in view["answers"])


def test_the_page_of_the_interface(bundle: Path) -> None:
    with running(bundle) as server:
        look(f"{server.url}/docs")
