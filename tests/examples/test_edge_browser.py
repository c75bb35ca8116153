"""The page in headless Chromium: the server's answers, no other machine, and no network."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.edge_bundles import EXAMPLES, Edge, check_answers, run_example

FOLDER = EXAMPLES / "browser"
FP32, INT8 = "onnx/model.onnx", "onnx/model_quantized.onnx"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
    pytest.mark.skipif(
        not (FOLDER / "node_modules").is_dir(), reason="run npm ci in examples/edge/browser first"
    ),
]
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed; or set CHROMIUM to its path"
)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """What `python -m http.server` answers with, without its log."""

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing."""


@contextlib.contextmanager
def served(site: Path, port: int = 0) -> Iterator[int]:
    """The folder on a port of this machine."""
    handler = functools.partial(QuietHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def assemble(bundle: Path, site: Path, file: str) -> Path:
    run_example("node", FOLDER / "assemble.mjs", bundle, site, "--file", file)
    return site


def visit(port: int, profile: Path, inputs: Path) -> dict[str, Any]:
    address = f"http://127.0.0.1:{port}/"
    report = run_example(
        "node", FOLDER / "check.mjs", address, profile, inputs, "5", CHROMIUM=str(CHROMIUM)
    )
    visited: dict[str, Any] = json.loads(report)
    return visited


@needs_browser
@pytest.mark.parametrize(
    ("kind", "file"), [("single", FP32), ("single", INT8), ("pair", FP32), ("multilabel", INT8)]
)
def test_the_page_gives_the_servers_answers_also_offline(
    edge: Callable[[str], Edge], kind: str, file: str, tmp_path: Path
) -> None:
    given = edge(kind)
    expected = given.expected(file)
    site = assemble(given.bundle, tmp_path / "site", file)
    inputs = tmp_path / "inputs.json"
    inputs.write_text(json.dumps(given.inputs), encoding="utf-8")
    profile = tmp_path / "profile"
    with served(site) as port:
        first = visit(port, profile, inputs)
    # the server is gone, and another browser process has only what the first one kept
    again = visit(port, profile, inputs)
    for visited in (first, again):
        assert visited["said"] == []
        assert visited["outside"] == []
        assert visited["fields"] == (2 if kind == "pair" else 1)
        check_answers(visited["answers"], expected)
        label = expected[0]["label"]
        shown = ", ".join([label] if isinstance(label, str) else label) or "none"
        assert visited["status"] == f"Label: {shown}"
        assert visited["latency"]["tokens"] == 32
        assert 0 < visited["latency"]["p50"] <= visited["latency"]["p95"]


@needs_browser
def test_a_page_with_another_model_replaces_the_kept_one(
    edge: Callable[[str], Edge], tmp_path: Path
) -> None:
    """The model of the first visit is not kept."""
    inputs = tmp_path / "inputs.json"
    profile = tmp_path / "profile"
    site = tmp_path / "site"
    with served(site) as port:
        for kind in ("single", "multilabel"):
            given = edge(kind)
            shutil.rmtree(site, ignore_errors=True)
            assemble(given.bundle, site, INT8)
            inputs.write_text(json.dumps(given.inputs), encoding="utf-8")
            visited = visit(port, profile, inputs)
            if kind == "multilabel":  # this visit still saw the old page, and fetched the new one
                visited = visit(port, profile, inputs)
            check_answers(visited["answers"], given.expected())


@needs_browser
def test_the_page_shows_that_a_model_does_not_open(
    edge: Callable[[str], Edge], tmp_path: Path
) -> None:
    site = assemble(edge("single").bundle, tmp_path / "site", FP32)
    (site / "bundle" / FP32).write_bytes(b"no model")
    inputs = tmp_path / "inputs.json"
    inputs.write_text('["text"]', encoding="utf-8")
    with served(site) as port:
        visited = visit(port, tmp_path / "profile", inputs)
    assert visited["status"].startswith("The model cannot be opened: ")


def test_errors_of_assemble(edge: Callable[[str], Edge], tmp_path: Path) -> None:
    program = FOLDER / "assemble.mjs"
    assert "usage: node assemble.mjs" in run_example("node", program, code=1)
    said = run_example("node", program, edge("single").bundle, tmp_path, code=1)
    assert "exists already; remove it or give another folder" in said
    said = run_example("node", program, tmp_path, tmp_path / "site", code=1)
    assert "manifest.json" in said
    options = ("--file", "onnx/none.onnx")
    said = run_example("node", program, edge("single").bundle, tmp_path / "s", *options, code=1)
    assert "none.onnx: missing; run npm ci, or give a whole bundle" in said


def test_the_page_names_no_other_machine() -> None:
    for file in (FOLDER / "index.html", FOLDER / "page.mjs", FOLDER / "service-worker.js"):
        assert "//" not in "".join(
            line.split("// ")[0] for line in file.read_text(encoding="utf-8").splitlines()
        )
    assert "default-src 'self'" in (FOLDER / "index.html").read_text(encoding="utf-8")
