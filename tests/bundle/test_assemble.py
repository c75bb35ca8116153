"""Assembling a bundle: the layout, and a manifest that matches its files."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from helpers.minimal_recipe import recipe_tree
from helpers.pipeline_run import Line, stage_directory
from helpers.tiny_models import open_tiny

from factory.bundle.assemble import (
    BundleParts,
    candidate_file,
    copy_files,
    make_manifest,
    open_candidate,
    ship_only,
)
from factory.bundle.measurements import RunMeasurements
from factory.data.dataset import read_dataset
from factory.evaluation.gate import RuleResult
from factory.evaluation.metrics import Score
from factory.export.forms import FormName
from factory.recipe.file import parse_recipe
from serving.bundle import read_manifest, verify_files, write_manifest
from serving.errors import BundleError


@pytest.fixture
def model(line: Line) -> Path:
    """The distilled student's folder."""
    return stage_directory(line.store, "distill") / "model"


@pytest.fixture
def forms(line: Line) -> dict[FormName, Path]:
    return {
        "fp32": stage_directory(line.store, "export") / "model.onnx",
        "int8-static": stage_directory(line.store, "quantize") / "int8-static.onnx",
    }


@pytest.fixture
def assembled(tmp_path: Path, model: Path, forms: dict[FormName, Path]) -> Path:
    copy_files(tmp_path, model, forms)
    return tmp_path


@pytest.fixture
def parts(line: Line) -> BundleParts:
    dataset = read_dataset(stage_directory(line.store, "data"))
    recipe = parse_recipe(recipe_tree({"data.max_length": 24}))
    return BundleParts(recipe, "00ff", dataset, lineage={"distill": "ab"})


def content(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def test_layout(assembled: Path, model: Path, forms: dict[FormName, Path]) -> None:
    before = content(assembled)
    assert set(before) == {
        "config.json",
        "onnx/candidate_fp32.onnx",
        "onnx/candidate_int8-static.onnx",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    }
    copy_files(assembled, model, forms)  # as a resumed run does
    assert content(assembled) == before


@pytest.mark.parametrize(
    ("chosen", "shipped"),
    [
        ("int8-static", {"model.onnx": "fp32", "model_quantized.onnx": "int8-static"}),
        ("fp32", {"model.onnx": "fp32"}),
    ],
)
def test_only_fp32_and_the_chosen_form_are_shipped(
    assembled: Path,
    forms: dict[FormName, Path],
    chosen: FormName,
    shipped: dict[str, FormName],
) -> None:
    assert shipped[Path(ship_only(assembled, chosen)).name] == chosen
    assert content(assembled / "onnx") == {
        name: forms[form].read_bytes() for name, form in shipped.items()
    }


def test_shipped_tokenizer_has_no_padding_or_truncation(line: Line) -> None:
    """A stored "pad to 128" would make other runtimes several times slower."""
    data = json.loads((line.bundle / "tokenizer.json").read_text(encoding="utf-8"))
    assert data["padding"] is data["truncation"] is None


def test_manifest_lists_every_file_with_its_hash(assembled: Path, parts: BundleParts) -> None:
    file = ship_only(assembled, "int8-static")
    score, rule = Score(0.5, 0.4, 0.6), RuleResult("min_value", 0.5, 0.4, True, "min_value: enough")
    measured = RunMeasurements(
        scores={"a": {"dev": {"b": score}}}, verdicts={"int8-static": [rule]}
    )
    (assembled / "README.md").write_text("card", encoding="utf-8")
    listed = content(assembled)
    # the records themselves, and what a killed run left of them
    for name in ("manifest.json", "artifact.json", ".manifest.json.partial", ".artifact.json.tmp"):
        (assembled / name).write_text("{", encoding="utf-8")
    manifest = make_manifest(assembled, parts, "int8-static", file, measured)
    assert {name: (one.sha256, one.size_bytes) for name, one in manifest.files.items()} == {
        name: (sha256(data).hexdigest(), len(data)) for name, data in listed.items()
    }
    assert (manifest.name, manifest.version, manifest.task) == ("tiny", "00ff", "classification")
    assert manifest.labels == ["angry", "calm", "glad"]
    assert (manifest.text_pair, manifest.max_length) == (False, 24)
    assert manifest.gate == [asdict(rule)]
    assert manifest.scores == {"a": {"dev": {"b": asdict(score)}}}
    assert manifest.data == {"rows": {"train": 210, "dev": 90, "test": 60}}
    assert manifest.versions["tinybert-factory"]
    write_manifest(assembled, manifest)
    assert read_manifest(assembled) == manifest
    verify_files(assembled, manifest)
    pairs = replace(parts.dataset.train, text_pairs=["x"] * len(parts.dataset.train))
    paired = replace(parts, dataset=replace(parts.dataset, train=pairs))
    assert make_manifest(assembled, paired, "fp32", file).text_pair


@pytest.mark.parametrize("form", ["fp32", "int8-static"])
def test_a_candidate_is_opened_through_the_servers_code(
    assembled: Path, model: Path, parts: BundleParts, form: FormName
) -> None:
    predictor = open_candidate(assembled, parts, form)
    assert predictor.manifest.model.file == candidate_file(form)
    assert predictor.manifest.model.form == form
    assert predictor.manifest.model.neighbour_independent
    texts = parts.dataset.dev.texts
    difference = np.abs(predictor.logits(texts) - open_tiny(model).logits(texts)).max()
    assert difference < (1e-4 if form == "fp32" else 1.0)
    assert (difference > 1e-3) == (form == "int8-static")


def test_a_candidate_with_wrong_labels_is_rejected(assembled: Path, parts: BundleParts) -> None:
    dataset = replace(parts.dataset, labels=("a", "b", "c", "d"))
    with pytest.raises(BundleError):
        open_candidate(assembled, replace(parts, dataset=dataset), "fp32")
