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
    """Everything but the bundle."""
    return line.copy_store(tmp_path, "bundle")


@pytest.fixture
def unquantized(line: Line, tmp_path: Path) -> Path:
    """Everything but the int8 file and the bundle."""
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


def looks_published(store: Path) -> list[str]:
    """Directories that hold a manifest, finished or not."""
    return [path.parent.name for path in store.rglob(MANIFEST_NAME)]


def test_predictions_of_the_bundle_are_the_students(line: Line) -> None:
    student = open_tiny(stage_directory(line.store, "distill") / "model")
    dataset = read_dataset(stage_directory(line.store, "data"))
    predictor = Predictor.open(line.bundle)
    assert predictor.manifest.model.variant == "int8-static"
    for split in dataset.splits()[1:]:
        expected = student.logits(split.inputs()).argmax(axis=1)
        found = predictor.logits(split.inputs()).argmax(axis=1)
        assert (found == expected).mean() >= 0.95


def test_the_manifests_scores_are_those_of_the_served_bundle(line: Line) -> None:
    """Computed anew from the answers, so that tokenizer, truncation and label order are inside."""
    dataset = read_dataset(stage_directory(line.store, "data"))
    predictor = Predictor.open(line.bundle)
    assert dataset.test is not None
    for split in (dataset.dev, dataset.test):
        answers = [np.argmax(answer.scores) for answer in predictor.predict(split.inputs())]
        accuracy = float((np.array(answers) == np.array(split.targets)).mean())
        recorded = predictor.manifest.scores["int8-static"][split.name]["accuracy"]
        assert recorded["value"] == pytest.approx(accuracy)
        assert recorded["low"] <= accuracy <= recorded["high"]


def test_the_manifest_is_complete_and_true(line: Line) -> None:
    manifest = read_manifest(line.bundle)
    verify_files(line.bundle, manifest)
    assert set(manifest.scores) == {"teacher", "student", "baseline", "fp32", "int8-static"}
    assert set(manifest.lineage) >= {"data", "teacher", "student", "evaluation", "onnx"}
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


def test_optimum_opens_the_bundle(line: Line) -> None:
    """The layout is the ecosystem's: no name of ours is needed to load it."""
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


def test_plain_transformers_reads_the_tokenizer_like_the_server(line: Line) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(line.bundle)
    texts = ["thanks!", "Broken, AWFUL é x9", " ".join(["parcel"] * 60)]
    served = Predictor.open(line.bundle).tokenize(texts)
    for text, item in zip(texts, served, strict=True):
        assert list(item.input_ids) == tokenizer(text, truncation=True)["input_ids"]
    told = json.loads((line.bundle / "sentence_bert_config.json").read_text(encoding="utf-8"))
    assert told == {"max_seq_length": tokenizer.model_max_length} == {"max_seq_length": 24}
    assert len(tokenizer(texts[0])["input_ids"]) == 4  # nothing stored pads it


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
    assert looks_published(unquantized) == []
    assert not list(unquantized.glob("*.partial"))


@pytest.mark.usefixtures("wrong_scales")
def test_the_next_form_ships_when_the_first_fails(line: Line, unquantized: Path) -> None:
    changes = {"quantize.forms": ["int8-static", "fp32"], "gate.min_agreement": 0.98}
    bundle = run(line, unquantized, changes)
    manifest = read_manifest(bundle)
    assert (manifest.model.variant, manifest.model.file) == ("fp32", "onnx/model.onnx")
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


def test_a_form_that_is_too_large_is_passed_over(line: Line, store: Path) -> None:
    """And the manifest says what was tried, and why the served form was chosen."""
    sizes = read_manifest(line.bundle).measurements["size_bytes"]
    changes = {
        "quantize.forms": ["fp32", "int8-static"],
        "gate.max_size_bytes": (sizes["int8-static"] + sizes["fp32"]) // 2,
        "gate.max_latency_ms": 60_000.0,
    }
    manifest = read_manifest(run(line, store, changes))
    measured = manifest.measurements
    assert manifest.model.variant == "int8-static"
    assert measured["choice"] == (
        "the first of fp32, int8-static (recipe order) to pass gate 2; failed: fp32"
    )
    assert {rule["rule"] for rule in manifest.gate} >= {"max_size_bytes", "max_latency_ms"}
    failed = [rule["rule"] for rule in measured["verdicts"]["fp32"] if not rule["passed"]]
    assert failed == ["max_size_bytes"]
    assert measured["verdicts"]["int8-static"] == manifest.gate
    assert measured["size_bytes"]["int8-static"] == sizes["int8-static"]
    assert measured["machine"]["cores"] == os.cpu_count()


def test_order_target_and_split_are_the_recipes(line: Line, store: Path) -> None:
    changes = {
        "quantize.forms": ["fp32", "int8-static"],
        "target.batch_size": 3,
        "target.tokens": 20,
        "target.threads": 2,
        "gate.split": "test",
        "gate.min_value": 0.1,
    }
    manifest = read_manifest(run(line, store, changes))
    assert manifest.model.variant == "fp32"
    assert manifest.measurements["latency_conditions"].startswith(
        "text to logits, batch 3, 2 threads, texts of 20 tokens"
    )
    (rule,) = [rule for rule in manifest.gate if rule["rule"] == "min_value"]
    assert rule["measured"] == manifest.scores["fp32"]["test"]["accuracy"]["value"]


def test_rules_about_cost_fail_the_gate(line: Line, store: Path) -> None:
    with pytest.raises(GateFailedError) as caught:
        run(line, store, {"gate.max_size_bytes": 1000, "gate.max_latency_ms": 1e-6})
    (rules,) = caught.value.verdicts.values()
    failed = {rule["rule"]: rule["limit"] for rule in rules if not rule["passed"]}
    assert failed == {"max_size_bytes": 1000, "max_latency_ms": 1e-6}
    assert looks_published(store) == []


@pytest.mark.parametrize(
    ("forms", "hardware", "order"),
    [
        (["fp32", "int8-static", "fp32"], "avx2", ["fp32", "int8-static"]),
        ("auto", "avx2", ["int8-rows", "int8-static", "int8-embeddings", "fp32"]),
        ("auto", "cuda", ["fp32-fused", "fp16", "fp32"]),
    ],
)
def test_the_fastest_comes_first_and_the_exact_one_last(
    forms: Any, hardware: Any, order: list[str]
) -> None:
    times = {"int8-static": 3.0, "int8-rows": 1.0, "int8-embeddings": 4.0}
    times |= {"fp32": 0.5, "fp16": 9.0, "fp32-fused": 1.0}
    latencies = {name: Latency(value, 99.0, 1) for name, value in times.items()}
    assert choose_order(QuantizeSettings(forms=forms), hardware, latencies) == order


def test_a_cut_vocabulary_ships_with_its_tokenizer_and_the_same_answers(
    line: Line, tmp_path: Path
) -> None:
    """Dev and test use the words of train, so every answer is as before."""
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
    assert manifest.lineage["trimmed"] != manifest.lineage["student"]


def test_pieces_nobody_needs_are_cut_and_what_they_read_is_counted(
    line: Line, tmp_path: Path
) -> None:
    student = load_artifact(stage_directory(line.store, "distill"))
    recipe = line_recipe({"export.general_pieces": 0})
    train = Split("train", ["my lamp"], None, [0])
    dataset = Dataset(
        "classification",
        ("a", "b"),
        train,
        Split("dev", ["my lamp", "my shop"], None, [0, 1]),
        None,
    )
    trimmed: dict[str, dict[str, Any]] = {}
    for folder in ("data", "unlabelled"):
        (tmp_path / folder).mkdir()
    write_dataset(dataset, tmp_path / "data")
    write_unlabelled(["the shop"], tmp_path / "unlabelled")
    artifacts = {
        "data": Artifact(tmp_path / "data", "", {}),
        "teacher": student,
        "distill": student,
    }
    more = artifacts | {"unlabelled": Artifact(tmp_path / "unlabelled", "", {})}
    sources = Sources(None, None, None, None, None, None, None)
    for folder, texts in (("alone", artifacts), ("more", more)):
        (tmp_path / folder).mkdir()
        run = Run(recipe, tmp_path, sources, "cpu", {}, texts)
        trimmed[folder] = trim.STAGE.make(tmp_path / folder, run)
    alone, both = trimmed["alone"], trimmed["more"]
    assert alone["pieces"] < alone["pieces_before"]
    assert alone["dev"]["changed_rows"] == 0.5  # "shop" is read letter by letter, or not at all
    assert both["pieces"] > alone["pieces"]
    assert both["dev"]["changed_rows"] == 0.0
    known = set((tmp_path / "more" / "model" / "vocab.txt").read_text().split())
    assert {"my", "lamp", "the", "shop", "[CLS]", "[UNK]"} <= known
