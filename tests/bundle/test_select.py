"""Stage bundle on real files: gate 2 checks the served forms, and ships the first that passes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from helpers.pipeline_run import Line, line_recipe, stage_directory
from helpers.tiny_models import open_tiny
from onnx import numpy_helper

from factory.bundle.measurements import weights_size
from factory.bundle.select import choose_order
from factory.cli.main import main
from factory.data.dataset import Dataset, Split, read_dataset, write_dataset
from factory.data.unlabelled import write_unlabelled
from factory.errors import GateFailedError
from factory.evaluation import latency
from factory.evaluation.latency import Latency
from factory.export.quantize import write
from factory.recipe.export import QuantizeSettings
from factory.stages import trim
from factory.stages.sources import Sources
from factory.stages.stage import Run
from factory.store import Artifact, load_artifact
from serving.bundle import MANIFEST_NAME, read_manifest, verify_files
from serving.predictor import Predictor


@pytest.fixture(autouse=True)
def few_timings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure latencies on few texts."""
    monkeypatch.setattr(latency, "CALLS", 4)
    monkeypatch.setattr(latency, "ROUNDS", 1)


@pytest.fixture
def store(line: Line, tmp_path: Path) -> Path:
    """A copy of the store without the bundle."""
    return line.copy_store(tmp_path, "bundle")


@pytest.fixture
def unquantized(line: Line, tmp_path: Path) -> Path:
    """A copy of the store without the int8 file and the bundle."""
    return line.copy_store(tmp_path, "bundle", "quantize")


@pytest.fixture
def wrong_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quantizer whose file loads and runs, with the pooler's scales negated."""
    real = write.write_integer

    def quantize_wrongly(*arguments: Any) -> dict[str, Any]:
        facts = real(*arguments)
        model = onnx.load(arguments[1])
        changed = 0
        for tensor in model.graph.initializer:
            if "pooler" in tensor.name and tensor.name.endswith("/scale"):
                wrong = -numpy_helper.to_array(tensor)
                tensor.CopyFrom(numpy_helper.from_array(wrong, tensor.name))
                changed += 1
        assert changed == 1
        onnx.save(model, arguments[1])
        return facts

    monkeypatch.setattr(write, "write_integer", quantize_wrongly)


def run(line: Line, store: Path, changes: dict[str, Any] | None = None) -> Path:
    """The recipe of the finished line with some settings changed, on a copy of its store."""
    return line.run_changed(store, changes)


def with_manifest(store: Path) -> list[str]:
    """Directories that have a manifest, finished or not."""
    return [path.parent.name for path in store.rglob(MANIFEST_NAME)]


def test_scores_in_the_manifest_are_those_of_the_served_bundle(line: Line) -> None:
    """Computed again from its predictions: tokenizer, truncation and order of labels included."""
    student = open_tiny(stage_directory(line.store, "distill") / "model")
    predictor = Predictor.open(line.bundle)
    assert predictor.manifest.model.form == "int8-static"
    for split in read_dataset(stage_directory(line.store, "data")).splits()[1:]:
        answers = np.array([np.argmax(one.scores) for one in predictor.predict(split.inputs())])
        assert (answers == student.logits(split.inputs()).argmax(axis=1)).mean() >= 0.95
        accuracy = float((answers == np.array(split.targets)).mean())
        recorded = predictor.manifest.scores["int8-static"][split.name]["accuracy"]
        assert recorded["value"] == pytest.approx(accuracy)
        assert recorded["low"] <= accuracy <= recorded["high"]


def test_manifest_of_a_run(line: Line) -> None:
    manifest = read_manifest(line.bundle)
    verify_files(line.bundle, manifest)
    assert set(manifest.scores) == {"teacher", "student", "baseline", "fp32", "int8-static"}
    assert set(manifest.lineage) >= {"data", "teacher", "distill", "evaluate", "export"}
    assert set(manifest.measurements["parameters"]) == set(manifest.scores)
    assert line.bundle.name.removeprefix("bundle-") == manifest.version[:12]
    assert manifest.data == {"rows": {"train": 210, "dev": 90, "test": 60}}
    sizes = manifest.measurements["size_bytes"]
    assert sizes["int8-static"] == (line.bundle / manifest.model.file).stat().st_size
    assert sizes["int8-static"] < sizes["fp32"]
    assert manifest.measurements["agreement"]["fp32"] == {"dev": 1.0, "test": 1.0}
    assert set(manifest.measurements["latency"]) == {"teacher", "student", "fp32", "int8-static"}
    assert [rule["rule"] for rule in manifest.gate] == ["min_retention", "max_quantization_drop"]
    assert all(rule["passed"] for rule in manifest.gate)
    assert manifest.recipe["distill"]["baseline"] == "random"
    card = (line.bundle / "README.md").read_text(encoding="utf-8")
    assert f"version: `{manifest.version}`" in card


def test_optimum_and_transformers_open_the_bundle(line: Line) -> None:
    from optimum.onnxruntime import ORTModelForSequenceClassification
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(line.bundle)
    model = ORTModelForSequenceClassification.from_pretrained(
        line.bundle, subfolder="onnx", file_name="model.onnx"
    )
    student = open_tiny(stage_directory(line.store, "distill") / "model")
    texts = read_dataset(stage_directory(line.store, "data")).dev.texts[:8]
    batch = tokenizer(texts, padding=True, truncation=True, max_length=24, return_tensors="pt")
    found = model(**batch).logits.numpy()
    np.testing.assert_allclose(found, student.logits(texts), atol=1e-4)
    assert model.config.id2label == {0: "angry", 1: "calm", 2: "glad"}
    texts = ["thanks!", "Broken, AWFUL é x9", " ".join(["parcel"] * 60)]
    served = Predictor.open(line.bundle).tokenize(texts)
    for text, item in zip(texts, served, strict=True):
        assert list(item.input_ids) == tokenizer(text, truncation=True)["input_ids"]
    sentence = json.loads((line.bundle / "sentence_bert_config.json").read_text(encoding="utf-8"))
    assert sentence == {"max_seq_length": tokenizer.model_max_length} == {"max_seq_length": 24}


@pytest.mark.usefixtures("wrong_scales")
def test_a_broken_form_passes_gate_1_and_fails_gate_2(line: Line, unquantized: Path) -> None:
    arguments = ["run", str(line.recipe), "--store", str(unquantized)]
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stdout) == (3, "")
    assert (
        "error: gate 2 (bundle through the server's code) failed, nothing was pub" in result.stderr
    )
    assert "int8-static  FAIL  max_quantization_drop" in result.stderr
    assert stage_directory(unquantized, "quantize").is_dir()  # the file itself loads and runs
    assert with_manifest(unquantized) == []
    assert not list(unquantized.glob("*.partial"))


@pytest.mark.usefixtures("wrong_scales")
def test_the_next_form_ships_when_the_first_fails(line: Line, unquantized: Path) -> None:
    changes = {"quantize.forms": ["int8-static", "fp32"], "gate.min_agreement": 0.98}
    bundle = run(line, unquantized, changes)
    manifest = read_manifest(bundle)
    assert (manifest.model.form, manifest.model.file) == ("fp32", "onnx/model.onnx")
    assert manifest.model.neighbour_independent
    assert all(rule["passed"] for rule in manifest.gate)
    verdicts = manifest.measurements["verdicts"]
    assert list(verdicts) == ["int8-static", "fp32"]
    failed = [rule["rule"] for rule in verdicts["int8-static"] if not rule["passed"]]
    assert failed == ["min_retention", "max_quantization_drop", "min_agreement"]
    scores = {name: manifest.scores[name]["dev"]["accuracy"]["value"] for name in manifest.scores}
    assert scores["int8-static"] < 0.5 < scores["fp32"]
    assert scores["fp32"] == scores["student"]
    assert "(served)" in next(
        row for row in (bundle / "README.md").read_text().splitlines() if "ONNX fp32" in row
    )


def test_a_form_that_is_too_large_is_skipped(line: Line, store: Path) -> None:
    """The manifest has the results of both forms, and why the served form was chosen."""
    sizes = read_manifest(line.bundle).measurements["size_bytes"]
    changes = {
        "quantize.forms": ["fp32", "int8-static"],
        "gate.max_size_bytes": (sizes["int8-static"] + sizes["fp32"]) // 2,
        "gate.max_latency_ms": 60_000.0,
    }
    manifest = read_manifest(run(line, store, changes))
    measured = manifest.measurements
    assert manifest.model.form == "int8-static"
    assert measured["choice"] == (
        "the first of fp32, int8-static (recipe order) to pass gate 2; failed: fp32"
    )
    assert {rule["rule"] for rule in manifest.gate} >= {"max_size_bytes", "max_latency_ms"}
    failed = [rule["rule"] for rule in measured["verdicts"]["fp32"] if not rule["passed"]]
    assert failed == ["max_size_bytes"]
    assert measured["verdicts"]["int8-static"] == manifest.gate
    assert measured["size_bytes"]["int8-static"] == sizes["int8-static"]
    assert measured["machine"]["cores"] == os.cpu_count()


def test_order_target_and_split_of_the_recipe(line: Line, store: Path) -> None:
    changes = {
        "quantize.forms": ["fp32", "int8-static"],
        "target.batch_size": 3,
        "target.tokens": 20,
        "target.threads": 2,
        "gate.split": "test",
        "gate.min_value": 0.1,
    }
    manifest = read_manifest(run(line, store, changes))
    assert manifest.model.form == "fp32"
    assert manifest.measurements["latency_conditions"].startswith(
        "text to logits, batch 3, 2 threads, texts of 20 tokens"
    )
    (rule,) = [rule for rule in manifest.gate if rule["rule"] == "min_value"]
    assert rule["measured"] == manifest.scores["fp32"]["test"]["accuracy"]["value"]


def test_cost_rules_fail_the_gate(line: Line, store: Path) -> None:
    with pytest.raises(GateFailedError) as caught:
        run(line, store, {"gate.max_size_bytes": 1000, "gate.max_latency_ms": 1e-6})
    (rules,) = caught.value.verdicts.values()
    failed = {rule["rule"]: rule["limit"] for rule in rules if not rule["passed"]}
    assert failed == {"max_size_bytes": 1000, "max_latency_ms": 1e-6}
    assert with_manifest(store) == []


@pytest.mark.parametrize(
    ("forms", "hardware", "order"),
    [
        (["fp32", "int8-static", "fp32"], "avx2", ["fp32", "int8-static"]),
        ("auto", "avx2", ["int8-rows", "int8-static", "int8-embeddings", "fp32"]),
        ("auto", "cuda", ["fp32-fused", "fp16", "fp32"]),
    ],
)
def test_auto_tries_the_fastest_form_first_and_fp32_last(
    forms: Any, hardware: Any, order: list[str]
) -> None:
    times = {"int8-static": 3.0, "int8-rows": 1.0, "int8-embeddings": 4.0}
    times |= {"fp32": 0.5, "fp16": 9.0, "fp32-fused": 1.0}
    latencies = {name: Latency(value, 99.0, 1) for name, value in times.items()}
    assert choose_order(QuantizeSettings(forms=forms), hardware, latencies) == order


def test_a_trimmed_vocabulary_ships_with_its_tokenizer_and_the_same_scores(
    line: Line, tmp_path: Path
) -> None:
    """Dev and test use the words of train, so nothing changes."""
    store = line.copy_store(tmp_path, "bundle", "quantize", "export")
    bundle = run(line, store, {"export.general_pieces": 0, "gate.max_unknown": 0.0})
    manifest, before = read_manifest(bundle), read_manifest(line.bundle)
    facts = manifest.measurements["vocabulary"]
    assert "max_unknown" in [rule["rule"] for rule in manifest.gate]
    pieces = (bundle / "vocab.txt").read_text(encoding="utf-8").splitlines()
    config = json.loads((bundle / "config.json").read_text(encoding="utf-8"))
    assert len(pieces) == facts["pieces"] == config["vocab_size"]
    for split in ("dev", "test"):
        assert facts[split]["changed_rows"] == facts[split]["unknown"] == 0.0
        assert manifest.scores["fp32"][split] == before.scores["fp32"][split]
    assert {"distill", "trim"} <= set(manifest.lineage)


def test_unused_pieces_are_trimmed_and_changed_rows_are_counted(line: Line, tmp_path: Path) -> None:
    """With and without unlabelled texts, which are read too."""
    train = Split("train", ["my lamp"], None, [0])
    dev = Split("dev", ["my lamp", "my shop"], None, [0, 1])
    for folder in ("data", "unlabelled", "labelled", "all"):
        (tmp_path / folder).mkdir()
    write_dataset(Dataset("classification", ("a", "b"), train, dev, None), tmp_path / "data")
    write_unlabelled(["the shop"], tmp_path / "unlabelled")
    student = load_artifact(stage_directory(line.store, "distill"))
    artifacts = {"data": Artifact(tmp_path / "data", "", {}), "distill": student}
    sources = Sources(None, None, None, None, None, None, None)
    run = Run(line_recipe({"export.general_pieces": 0}), tmp_path, sources, "cpu", {}, artifacts)
    labelled = trim.STAGE.make(tmp_path / "labelled", run)
    artifacts["unlabelled"] = Artifact(tmp_path / "unlabelled", "", {})
    both = trim.STAGE.make(tmp_path / "all", run)
    assert labelled["pieces"] < both["pieces"] < both["pieces_before"]
    assert weights_size(tmp_path / "all")[1] < weights_size(student.directory)[1]
    assert labelled["dev"]["changed_rows"] == 0.5  # "shop" lost its piece
    assert both["dev"]["changed_rows"] == 0.0
    known = set((tmp_path / "all" / "model" / "vocab.txt").read_text().split())
    assert {"my", "lamp", "the", "shop", "[CLS]", "[UNK]"} <= known
