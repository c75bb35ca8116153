"""Assembling a bundle: the files of the ecosystem's layout, and a manifest that is true of them."""

from __future__ import annotations

import json
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.pipeline_run import Line, stage_directory

from factory.bundle.assemble import (
    BundleParts,
    candidate_file,
    copy_files,
    make_manifest,
    open_candidate,
    ship_only,
)
from factory.bundle.measurements import RunMeasurements
from factory.data.dataset import Dataset, read_dataset
from factory.evaluation.gate import RuleResult
from factory.evaluation.metrics import Score
from factory.export.forms import FormName
from serving.bundle import read_manifest, verify_files, write_manifest
from serving.errors import BundleError


@pytest.fixture
def model(line: Line) -> Path:
    """The distilled student's folder."""
    return stage_directory(line.store, "distill") / "model"


@pytest.fixture
def variants(line: Line) -> dict[FormName, Path]:
    """Both ONNX files."""
    return {
        "fp32": stage_directory(line.store, "export") / "model.onnx",
        "int8-static": stage_directory(line.store, "quantize") / "int8-static.onnx",
    }


@pytest.fixture
def parts(line: Line) -> BundleParts:
    """What the manifests have in common."""
    return BundleParts(
        name="tiny",
        version="00ff",
        dataset=read_dataset(stage_directory(line.store, "data")),
        max_length=24,
        opset=17,
        recipe={"name": "tiny"},
        lineage={"student": "ab"},
        data_facts={"rows": {"dev": 90}},
    )


def files_below(directory: Path) -> set[str]:
    return {
        path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()
    }


def test_layout(tmp_path: Path, model: Path, variants: dict[FormName, Path]) -> None:
    copy_files(tmp_path, model, variants)
    assert files_below(tmp_path) == {
        "config.json",
        "onnx/candidate_fp32.onnx",
        "onnx/candidate_int8-static.onnx",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    }
    for name, file in variants.items():
        assert (tmp_path / candidate_file(name)).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("chosen", "shipped"),
    [
        ("int8-static", {"model.onnx": "fp32", "model_quantized.onnx": "int8-static"}),
        ("fp32", {"model.onnx": "fp32"}),
    ],
)
def test_only_the_chosen_variant_and_fp32_ship(
    tmp_path: Path,
    model: Path,
    variants: dict[FormName, Path],
    chosen: FormName,
    shipped: dict[str, FormName],
) -> None:
    copy_files(tmp_path, model, variants)
    file = ship_only(tmp_path, chosen)
    assert shipped[Path(file).name] == chosen
    assert {path.name for path in (tmp_path / "onnx").iterdir()} == set(shipped)
    for name, variant in shipped.items():
        assert (tmp_path / "onnx" / name).read_bytes() == variants[variant].read_bytes()


def test_copying_twice_gives_the_same(
    tmp_path: Path, model: Path, variants: dict[FormName, Path]
) -> None:
    copy_files(tmp_path, model, variants)
    once = {name: (tmp_path / name).read_bytes() for name in files_below(tmp_path)}
    copy_files(tmp_path, model, variants)
    assert {name: (tmp_path / name).read_bytes() for name in files_below(tmp_path)} == once


def test_the_published_tokenizer_pads_and_cuts_nothing(line: Line) -> None:
    """A stored "pad to 128" would cost a runtime that honours it several times the work."""
    data = json.loads((line.bundle / "tokenizer.json").read_text(encoding="utf-8"))
    assert data["padding"] is None
    assert data["truncation"] is None


def test_manifest_lists_every_file_with_its_hash(
    tmp_path: Path, model: Path, variants: dict[FormName, Path], parts: BundleParts
) -> None:
    copy_files(tmp_path, model, variants)
    file = ship_only(tmp_path, "int8-static")
    score, rule = Score(0.5, 0.4, 0.6), RuleResult("min_value", 0.5, 0.4, True, "min_value: enough")
    measured = RunMeasurements(
        scores={"a": {"dev": {"b": score}}}, verdicts={"int8-static": [rule]}
    )
    (tmp_path / "README.md").write_text("card", encoding="utf-8")
    listed = files_below(tmp_path)
    (tmp_path / "manifest.json").write_text("{}", encoding="utf-8")
    (tmp_path / "artifact.json").write_text("{}", encoding="utf-8")
    manifest = make_manifest(tmp_path, parts, "int8-static", file, measured)
    assert set(manifest.files) == listed
    for name, record in manifest.files.items():
        content = (tmp_path / name).read_bytes()
        assert (record.sha256, record.size_bytes) == (sha256(content).hexdigest(), len(content))
    assert (manifest.name, manifest.version, manifest.task) == ("tiny", "00ff", "classification")
    assert manifest.labels == ["angry", "calm", "glad"]
    assert (manifest.text_pair, manifest.max_length) == (False, 24)
    assert manifest.gate == [asdict(rule)]
    assert manifest.scores == {"a": {"dev": {"b": asdict(score)}}}
    assert manifest.versions["tinybert-factory"]
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    verify_files(tmp_path, manifest)


@pytest.mark.parametrize("variant", ["fp32", "int8-static"])
def test_a_variant_opened_is_that_file_through_the_servers_code(
    tmp_path: Path,
    model: Path,
    variants: dict[FormName, Path],
    parts: BundleParts,
    variant: FormName,
) -> None:
    from helpers.tiny_models import open_tiny

    copy_files(tmp_path, model, variants)
    predictor = open_candidate(tmp_path, parts, variant)
    assert predictor.manifest.model.file == candidate_file(variant)
    assert predictor.manifest.model.variant == variant
    assert predictor.manifest.model.neighbour_independent
    texts = parts.dataset.dev.texts
    difference = np.abs(predictor.logits(texts) - open_tiny(model).logits(texts)).max()
    assert difference < (1e-4 if variant == "fp32" else 1.0)
    assert (difference > 1e-3) == (variant == "int8-static")


def test_pairs_are_marked(
    tmp_path: Path, model: Path, variants: dict[FormName, Path], parts: BundleParts
) -> None:
    from dataclasses import replace

    train = replace(parts.dataset.train, text_pairs=["x"] * len(parts.dataset.train))
    dataset: Dataset = replace(parts.dataset, train=train)
    copy_files(tmp_path, model, variants)
    file = candidate_file("fp32")
    assert make_manifest(tmp_path, replace(parts, dataset=dataset), "fp32", file).text_pair


def test_what_a_kill_left_of_a_manifest_is_no_part_of_the_bundle(
    tmp_path: Path, model: Path, variants: dict[FormName, Path], parts: BundleParts
) -> None:
    copy_files(tmp_path, model, variants)
    (tmp_path / ".manifest.json.partial").write_text("{", encoding="utf-8")
    (tmp_path / ".artifact.json.tmp").write_text("{", encoding="utf-8")
    predictor = open_candidate(tmp_path, parts, "int8-static")
    assert not [name for name in predictor.manifest.files if name.startswith(".")]


def test_wrong_labels_are_found_when_the_variant_is_opened(
    tmp_path: Path, model: Path, variants: dict[FormName, Path], parts: BundleParts
) -> None:
    from dataclasses import replace

    copy_files(tmp_path, model, variants)
    dataset: Any = replace(parts.dataset, labels=("a", "b", "c", "d"))
    with pytest.raises(BundleError):
        open_candidate(tmp_path, replace(parts, dataset=dataset), "fp32")
