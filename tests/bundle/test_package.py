"""`factory package`: the model in another format, complete and checked, or nothing."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from helpers.edge_bundles import MAX_LENGTH, TEXTS, Edge
from helpers.pipeline_run import factory_here
from helpers.tiny_models import LABELS
from tokenizers import Tokenizer

from factory.errors import ParityError
from factory.export import mobile
from factory.export.parity import open_session
from factory.export.text import write as text_input
from serving.predictor import Predictor


def package(bundle: Path, output: Path, form: str = "ort") -> Result:
    return factory_here("package", bundle, "--format", form, "--output", output)


def check_refused(result: Result, *words: str) -> None:
    assert (result.exit_code, result.stdout) == (1, "")
    for word in words:
        assert word in result.stderr


def test_ort_files_give_the_logits_of_the_bundle(
    edge: Callable[[str], Edge], tmp_path: Path
) -> None:
    """From the files of the new directory alone."""
    bundle = edge("single").bundle
    output = tmp_path / "for" / "phones"
    result = package(bundle, output)
    assert (result.exit_code, result.stdout) == (0, f"{output}\n")
    assert sorted(path.name for path in output.iterdir()) == [
        "labels.json",
        "model.ort",
        "required_operators_and_types.config",
        "tokenizer.json",
        "vocab.txt",
    ]
    assert [path.name for path in output.parent.iterdir()] == ["phones"]
    usage = json.loads((output / "labels.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(output / "tokenizer.json"))
    tokenizer.enable_truncation(usage["max_length"])
    session = open_session(output / "model.ort", threads=1)
    for text, expected in zip(TEXTS, Predictor.open(bundle).logits(TEXTS), strict=True):
        encoded = tokenizer.encode(text)
        columns = (encoded.ids, encoded.attention_mask, encoded.type_ids)
        inputs = {name: np.array([row]) for name, row in zip(usage["inputs"], columns, strict=True)}
        (found,) = session.run(usage["outputs"], inputs)
        np.testing.assert_allclose(found[0], expected, atol=1e-5)


@pytest.fixture
def quick_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare few characters; the tests of the text graph compare them all."""
    few = functools.partial(text_input.write_text_model, strings=60, code_points=range(600))
    monkeypatch.setattr(text_input, "write_text_model", few)


@pytest.mark.usefixtures("quick_check")
def test_text_model_gives_the_answers_of_the_bundle(
    edge: Callable[[str], Edge], tmp_path: Path
) -> None:
    given = edge("single")
    result = package(given.bundle, tmp_path / "out", "text")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'out'}\n"), result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "labels.json",
        "model.onnx",
    ]
    usage = json.loads((tmp_path / "out" / "labels.json").read_text(encoding="utf-8"))
    assert (usage["inputs"], usage["outputs"]) == (["text"], ["label", "scores"])
    session = open_session(tmp_path / "out" / "model.onnx", threads=1)
    for item, expected in zip(given.inputs, given.expected(), strict=True):
        label, scores = session.run(usage["outputs"], {"text": np.array([item], dtype=object)})
        assert label.tolist() == [expected["label"]]
        assert scores[0].tolist() == pytest.approx(list(expected["scores"].values()), abs=1e-5)


def test_labels_json(edge: Callable[[str], Edge], tmp_path: Path) -> None:
    package(edge("multilabel").bundle, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "labels.json").read_text(encoding="utf-8")) == {
        "name": "edge-multilabel",
        "version": "0123456789ab",
        "form": "int8-static",
        "task": "multilabel",
        "labels": list(LABELS),
        "text_pair": False,
        "max_length": MAX_LENGTH,
        "thresholds": [0.4, 0.5, 0.6],
        "inputs": ["input_ids", "attention_mask", "token_type_ids"],
        "outputs": ["logits"],
    }
    package(edge("pair").bundle, tmp_path / "pairs")
    usage = json.loads((tmp_path / "pairs" / "labels.json").read_text(encoding="utf-8"))
    assert usage["text_pair"] is True
    assert "thresholds" not in usage


@pytest.mark.parametrize("kind", ["folder", "file", "broken link"])
def test_nothing_is_overwritten(edge: Callable[[str], Edge], tmp_path: Path, kind: str) -> None:
    output = tmp_path / "out"
    if kind == "folder":
        output.mkdir()
    elif kind == "file":
        output.write_bytes(b"mine")
    else:
        output.symlink_to(tmp_path / "nowhere")
    result = package(edge("single").bundle, output)
    check_refused(result, f"{output} already exists; give another directory or remove it")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not output.is_dir() or not list(output.iterdir())


@pytest.mark.parametrize(
    ("failure", "code"), [(ParityError("a logit differs"), 1), (KeyboardInterrupt(), 130)]
)
def test_a_failure_leaves_nothing(
    edge: Callable[[str], Edge],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    code: int,
) -> None:
    def fail(source: Path, directory: Path, config: Any) -> None:
        (directory / "model.ort").write_bytes(b"half")
        raise failure

    monkeypatch.setattr(mobile, "write_mobile", fail)
    result = package(edge("single").bundle, tmp_path / "out")
    assert (result.exit_code, result.stdout) == (code, "")
    assert list(tmp_path.iterdir()) == []


def test_only_an_intact_bundle_is_packaged(edge: Callable[[str], Edge], tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(edge("single").bundle, tmp_path / "bundle"))
    (bundle / "vocab.txt").write_text("[PAD]\n", encoding="utf-8")
    check_refused(package(bundle, tmp_path / "out"), "vocab.txt has 6 bytes, the manifest says")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    check_refused(package(tmp_path, tmp_path / "out"), "give the directory of a bundle")
    result = package(bundle, tmp_path / "out", "zip")
    assert result.exit_code == 2
    assert "'zip' is not" in result.stderr
