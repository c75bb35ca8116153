"""The page in headless Chromium: console, requests, overflow, accessibility, speed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from report_store import dataset_of, write_store

from factory.report.facts import bundle_facts
from factory.report.page import render_page

FOLDER = Path(__file__).parent / "browser"
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


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """Eighty long labels, a very long word, and models that differ in every tenth row."""
    random = np.random.default_rng(3)
    labels = tuple(f"a_label_of_many_words_number_{number}" for number in range(79))
    labels = (*labels, "label" * 30)
    targets = [number % 80 for number in range(400)]
    texts = [
        f"text {number} " + "endless" * (60 if number % 10 == 0 else 1) for number in range(400)
    ]
    teacher = random.normal(size=(400, 80)).astype(np.float32)
    teacher[np.arange(400), targets] += 4
    student = teacher.copy()
    student[::10] = np.roll(student[::10], 1, axis=1)
    outputs = {"teacher": teacher, "student": student}
    bundle = write_store(tmp_path / "runs", dataset_of(labels, texts, targets), outputs)
    file = tmp_path / "report.html"
    file.write_text(render_page(bundle_facts(bundle), 20), encoding="utf-8")
    return file


def test_the_page_on_mobile_and_desktop_in_light_and_dark(page: Path) -> None:
    assert page.stat().st_size < 2_000_000
    result = subprocess.run(
        ["node", str(FOLDER / "check.mjs"), str(page)],
        env={**os.environ, "CHROMIUM": str(CHROMIUM)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    views = json.loads(result.stdout)
    assert [(view["width"], view["colorScheme"]) for view in views] == [
        (380, "light"),
        (380, "dark"),
        (1280, "light"),
        (1280, "dark"),
    ]
    for view in views:
        assert view["messages"] == []
        assert view["outside"] == []
        assert view["overflow"] <= 0
        assert view["violations"] == []
    # milliseconds; the fastest of four, as other work on the machine only adds to it
    assert min(view["interactive"] for view in views) < 1000
