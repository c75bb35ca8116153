"""Node gives the server's answers: our example, and transformers.js on the unchanged bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.edge_bundles import (
    EXAMPLES,
    OTHERWISE_IN_JAVASCRIPT,
    TEXTS,
    Edge,
    check_answers,
    json_lines,
    run_example,
)

from serving.predictor import Predictor

FOLDER = EXAMPLES / "node"
FP32, INT8 = "onnx/model.onnx", "onnx/model_quantized.onnx"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
]
needs_packages = pytest.mark.skipif(
    not (FOLDER / "node_modules").is_dir(), reason="run npm ci in examples/edge/node first"
)


@needs_packages
@pytest.mark.parametrize("kind", ["single", "pair", "multilabel", "regression"])
@pytest.mark.parametrize("file", [FP32, INT8])
def test_the_answers_are_the_servers(edge: Callable[[str], Edge], kind: str, file: str) -> None:
    given = edge(kind)
    printed = run_example(
        "node", FOLDER / "classify.mjs", given.bundle, "--file", file, "--", *given.arguments()
    )
    check_answers(json_lines(printed), given.expected(file))


@needs_packages
@pytest.mark.parametrize(("precision", "file"), [("fp32", FP32), ("q8", INT8)])
def test_transformers_js_opens_the_bundle_unchanged(
    edge: Callable[[str], Edge], precision: str, file: str
) -> None:
    """It truncates at the tokenizer's length, and tokenizes some characters differently."""
    given = edge("single")
    tokens = Predictor.open(given.bundle).tokenize(TEXTS)
    fitting = [
        number
        for number, item in enumerate(tokens)
        if not item.truncated and not any(one in TEXTS[number] for one in OTHERWISE_IN_JAVASCRIPT)
    ]
    texts = [TEXTS[number] for number in fitting]
    found = json_lines(
        run_example("node", FOLDER / "transformers_pipeline.mjs", given.bundle, precision, *texts)
    )
    for answer in found:  # sorted by score
        answer["scores"] = dict(sorted(answer["scores"].items()))
    answers = given.expected(file)
    check_answers(found, [answers[number] for number in fitting])


@needs_packages
def test_errors(edge: Callable[[str], Edge], tmp_path: Path) -> None:
    program = FOLDER / "classify.mjs"
    assert "usage: node classify.mjs" in run_example("node", program, code=1)
    said = run_example("node", program, tmp_path, "text", code=1)
    assert "manifest.json: cannot be read (ENOENT)" in said
    assert "give a bundle's directory" in said
    said = run_example("node", program, edge("pair").bundle, "no tab", code=1)
    assert said == "error: edge-pair takes pairs of texts\n"
    copy = Path(shutil.copytree(edge("single").bundle, tmp_path / "copy"))
    (copy / "tokenizer.json").write_text("{", encoding="utf-8")
    assert "tokenizer.json: not JSON" in run_example("node", program, copy, "text", code=1)
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    (copy / "manifest.json").write_text(json.dumps(manifest | {"format_version": 2}), "utf-8")
    assert "is not tinybert-factory-bundle 1" in run_example("node", program, copy, "a", code=1)


@pytest.mark.parametrize("folder", ["node", "browser"])
def test_versions_are_pinned_and_no_registry_is_named(folder: str) -> None:
    package = json.loads((EXAMPLES / folder / "package.json").read_text(encoding="utf-8"))
    lock = json.loads((EXAMPLES / folder / "package-lock.json").read_text(encoding="utf-8"))
    wanted = package["dependencies"] | package["devDependencies"]
    for name, version in wanted.items():
        installed = lock["packages"][f"node_modules/{name}"]
        assert installed["version"] == version
    assert not [name for name, entry in lock["packages"].items() if "resolved" in entry]
    assert all("integrity" in entry for name, entry in lock["packages"].items() if name)


@pytest.mark.network
@pytest.mark.parametrize("folder", ["node", "browser"])
def test_the_locked_packages_install(folder: str, tmp_path: Path) -> None:
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copyfile(EXAMPLES / folder / name, tmp_path / name)
    run_example("npm", "ci", "--prefix", tmp_path)
    assert (tmp_path / "node_modules" / "@huggingface" / "tokenizers").is_dir()
