"""One run of a tiny recipe with most stages, and everything it publishes.

Uses the command line, the files on disk and `serving.Predictor` only, so that no test here
depends on the layout of the packages.
"""

from __future__ import annotations

import csv
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_inputs import (
    LABELS,
    MAX_LENGTH,
    UNUSED,
    VOCABULARY,
    factory,
    onnx_logits,
    save_teacher,
    student_folder,
    texts,
    torch_logits,
    write_tsv,
)

RECIPE = f"""
name = "golden-run"

[data]
train = "train.tsv"
dev = "dev.tsv"
test = "test.tsv"
unlabelled = "more.txt"
max_length = {MAX_LENGTH}

[teacher]
model = "teacher"
epochs = 4.0
batch_size = 16
learning_rate = 2e-3

[augment]
copies = 1

[student]
layers = 2
hidden = 104
heads = 4
intermediate = 120

[distill]
batch_size = 32
seeds = 2
holdout_fraction = 0.1
baseline = "random"

[distill.intermediate]
epochs = 2.0
learning_rate = 1e-3

[distill.prediction]
epochs = 2.0
learning_rate = 1e-3

[prune]
neurons = 100
epochs = 1.0
learning_rate = 5e-4

[export]
general_pieces = 2

[quantize]
forms = ["int8-static", "int8-rows", "int8-embeddings", "int4", "fp32"]

[gate]
min_value = 0.85
max_drop = 0.15
min_retention = 0.85
min_gain = -0.2
min_class_recall = 0.7
max_quantization_drop = 0.1
min_agreement = 0.9
max_unknown = 0.05
max_size_bytes = 2000000
max_latency_ms = 10000.0
"""
STAGES = (
    "data", "unlabelled", "teacher", "augment", "distill", "prune", "baseline", "evaluate", "trim",
    "export", "quantize", "bundle",
)  # fmt: skip
RULES = (
    "min_value", "max_drop", "min_retention", "min_gain", "min_class_recall",
    "max_quantization_drop", "min_agreement", "max_unknown", "max_size_bytes", "max_latency_ms",
)  # fmt: skip
FORMS = ("int8-static", "int8-rows", "int8-embeddings", "int4", "fp32")


@dataclass(frozen=True, slots=True)
class Ran:
    """A finished run."""

    directory: Path
    result: subprocess.CompletedProcess[str]

    @property
    def store(self) -> Path:
        """The stages' directories."""
        return self.directory / "runs"

    @property
    def bundle(self) -> Path:
        """The path that the run printed."""
        return Path(self.result.stdout.strip())

    def manifest(self) -> dict[str, Any]:
        """The bundle's manifest."""
        content: dict[str, Any] = json.loads(
            (self.bundle / "manifest.json").read_text(encoding="utf-8")
        )
        return content

    def dev(self) -> tuple[list[str], list[str]]:
        """Texts and labels of the dev file."""
        with (self.directory / "dev.tsv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        return [row["text"] for row in rows], [row["label"] for row in rows]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The run; no test may change its folder."""
    directory = tmp_path_factory.mktemp("golden-run")
    save_teacher(directory / "teacher")
    rows = texts("run", 400)
    for split, chosen in (("train", rows[:210]), ("dev", rows[210:300]), ("test", rows[300:345])):
        write_tsv(directory / f"{split}.tsv", chosen)
    more = [text for text, _ in rows[345:]]
    (directory / "more.txt").write_text("\n".join(more) + "\n", encoding="utf-8")
    (directory / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    result = factory("run", directory / "recipe.toml", "--store", directory / "runs")
    assert result.returncode == 0, result.stderr
    return Ran(directory, result)


def test_output_of_the_run(ran: Ran) -> None:
    assert ran.result.stdout == f"{ran.bundle}\n"
    lines = [line for line in ran.result.stderr.splitlines() if line.startswith("[")]
    assert [line[1:].partition("]")[0] for line in lines] == list(STAGES)
    assert "gate 1  pass" in ran.result.stderr
    assert "gate 2  int8-static  pass" in ran.result.stderr
    assert "FAIL" not in ran.result.stderr


def facts_of(ran: Ran, stage: str) -> dict[str, Any]:
    """What a stage recorded."""
    (file,) = ran.store.glob(f"{stage}-*/artifact.json")
    facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["facts"]
    return facts


def test_augmented_and_unlabelled_rows_are_in_the_transfer_set(ran: Ran) -> None:
    augmented = facts_of(ran, "augment")["examples"]
    assert augmented > 100
    assert facts_of(ran, "unlabelled")["rows"] == 55
    # held out: a tenth of the labelled rows, with the examples made of them
    rows = 210 - 21 + augmented - 21 + 55
    distilled = facts_of(ran, "distill")
    assert distilled["rows"] == rows
    steps = 2 * -(-rows // 32)
    assert distilled["steps"] == {"intermediate": steps, "prediction": steps}


def test_the_files_of_the_bundle(ran: Ran) -> None:
    files = [file for file in ran.bundle.rglob("*") if file.is_file()]
    content = [
        "README.md",
        "config.json",
        "onnx/model.onnx",
        "onnx/model_quantized.onnx",
        "sentence_bert_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ]
    found = sorted(file.relative_to(ran.bundle).as_posix() for file in files)
    assert found == sorted([*content, "artifact.json", "manifest.json"])
    listed = ran.manifest()["files"]
    assert sorted(listed) == content
    for name, record in listed.items():
        assert record["size_bytes"] == (ran.bundle / name).stat().st_size


def test_the_manifest(ran: Ran) -> None:
    manifest = ran.manifest()
    assert sorted(manifest) == [
        "data", "files", "format", "format_version", "gate", "labels", "lineage", "max_length",
        "measurements", "model", "name", "recipe", "scores", "task", "text_pair", "version",
        "versions",
    ]  # fmt: skip
    assert manifest["format"] == "tinybert-factory-bundle"
    assert (manifest["name"], manifest["task"]) == ("golden-run", "classification")
    assert manifest["labels"] == list(LABELS)
    assert (manifest["text_pair"], manifest["max_length"]) == (False, MAX_LENGTH)
    assert manifest["model"] == {
        "file": "onnx/model_quantized.onnx",
        "form": "int8-static",
        "inputs": ["input_ids", "attention_mask", "token_type_ids"],
        "output": "logits",
        "opset": 17,
        "neighbour_independent": True,
    }
    assert manifest["data"]["rows"] == {"train": 210, "dev": 90, "test": 45}
    assert {"torch", "transformers", "onnx", "onnxruntime"} <= set(manifest["versions"])
    assert manifest["recipe"]["student"]["hidden"] == 104


def test_every_gate_rule_is_there_and_passed(ran: Ran) -> None:
    manifest = ran.manifest()
    assert [rule["rule"] for rule in manifest["gate"]] == list(RULES)
    assert all(rule["passed"] for rule in manifest["gate"])
    assert [rule["limit"] for rule in manifest["gate"]] == [
        manifest["recipe"]["gate"][rule] for rule in RULES
    ]


def test_every_model_and_form_is_scored(ran: Ran) -> None:
    """With a floor below what each of them reaches."""
    floors = dict.fromkeys(("teacher", "student", "unpruned"), 0.9)
    floors |= dict.fromkeys(FORMS, 0.85) | {"baseline": 0.5}
    scores = ran.manifest()["scores"]
    assert set(scores) == set(floors)
    for model, floor in floors.items():
        assert set(scores[model]) == {"dev", "test"}
        for split in ("dev", "test"):
            assert floor <= scores[model][split]["accuracy"]["value"] <= 1, (model, split)


def test_shapes_of_the_shipped_model(ran: Ran) -> None:
    """Without pruned neurons and trimmed pieces; used pieces keep their order."""
    config = json.loads((ran.bundle / "config.json").read_text(encoding="utf-8"))
    pieces = (ran.bundle / "vocab.txt").read_text(encoding="utf-8").split()
    assert (config["num_hidden_layers"], config["hidden_size"]) == (2, 104)
    assert config["intermediate_size"] == 100
    assert config["vocab_size"] == len(pieces)
    assert pieces == [piece for piece in VOCABULARY if piece in set(pieces)]
    # export.general_pieces is 2
    assert [piece for piece in VOCABULARY if piece not in pieces] == list(UNUSED[2:])


def test_the_served_labels_are_the_torch_students(ran: Ran) -> None:
    from serving import Predictor

    rows, labels = ran.dev()
    student = torch_logits(student_folder(ran.store, ran.bundle), rows)
    np.testing.assert_allclose(
        onnx_logits(ran.bundle, "onnx/model.onnx", rows), student, rtol=0, atol=1e-4
    )
    served = Predictor.open(ran.bundle)
    assert served.labels == LABELS
    answers = [LABELS[int(np.argmax(prediction.scores))] for prediction in served.predict(rows)]
    right = float(np.mean([answer == label for answer, label in zip(answers, labels, strict=True)]))
    scores = ran.manifest()["scores"]
    assert right == pytest.approx(scores["int8-static"]["dev"]["accuracy"]["value"])
    # eight bits may move a label only where the student hesitates
    ordered = np.sort(student, axis=1)
    sure = ordered[:, -1] - ordered[:, -2] > 0.5
    assert sure.mean() > 0.6
    for answer, logits in zip(np.array(answers)[sure].tolist(), student[sure], strict=True):
        assert answer == LABELS[int(logits.argmax())]
    wanted = [LABELS[position] for position in student.argmax(axis=1)]
    assert np.mean([a == w for a, w in zip(answers, wanted, strict=True)]) > 0.9
