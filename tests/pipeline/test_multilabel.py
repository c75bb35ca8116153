"""A run for multilabel data, from the recipe to the server's answers."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.pipeline_run import line_recipe, stage_directory, write_files
from helpers.tiny_models import LABELS, open_tiny, save_tiny, tiny_bert, tiny_multilabel
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score

from factory import pipeline
from factory.errors import GateFailedError, TeacherError
from factory.evaluation.evaluate import evaluation_lines, score_file
from factory.store import Store, load_artifact
from factory.teacher.fine_tune import check_teacher
from serving.app import create_app
from serving.bundle import read_manifest
from serving.predictor import Predictor
from serving.settings import Settings

with warnings.catch_warnings():
    # starlette would rather have httpx2; the development group has httpx, which it still takes
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

pytestmark = pytest.mark.usefixtures("few_timings")

DATASET = tiny_multilabel()
CHANGES: Mapping[str, Any] = {
    "data.task": "multilabel",
    "data.allow_duplicates": True,
    "teacher.epochs": 24.0,
    "distill.baseline": "same",
    "gate": {"min_retention": 0.6, "max_quantization_drop": 0.2},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run in it."""
    folder = tmp_path_factory.mktemp("multilabel")
    save_tiny(tiny_bert(), folder / "teacher")
    write_files(folder, DATASET)
    run(folder)
    return folder


def run(base: Path, changes: Mapping[str, Any] | None = None) -> Path:
    recipe = line_recipe({**CHANGES, **(changes or {})})
    return pipeline.run(recipe, base, Store(base / "runs"), "cpu", report=False)


def applies(split: Any) -> NDArray[np.bool_]:
    """By a loop over every row and label."""
    return np.array([[label in target for label in range(3)] for target in split.targets])


def test_the_shipped_scores_are_those_of_what_is_served(base: Path) -> None:
    bundle = stage_directory(base / "runs", "bundle")
    manifest = read_manifest(bundle)
    assert (manifest.task, tuple(manifest.labels)) == ("multilabel", LABELS)
    assert manifest.gate[0]["text"].startswith("min_retention: micro_f1 retention ")
    assert len(manifest.thresholds) == 3  # type: ignore[arg-type]
    predictor = Predictor.open(bundle)
    assert DATASET.test is not None
    for split in (DATASET.dev, DATASET.test):
        answers = predictor.predict(split.texts)
        probabilities = np.array([answer.scores for answer in answers])
        logits = predictor.logits(split.texts).astype(np.float64)
        np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits)), atol=1e-12)
        decided = np.array([answer.applies for answer in answers])
        assert (decided == (probabilities >= np.array(manifest.thresholds))).all()
        shipped = manifest.scores[manifest.model.form][split.name]
        targets = applies(split)
        assert shipped["micro_f1"]["value"] == pytest.approx(
            f1_score(targets, decided, average="micro")
        )
        assert shipped["exact_match"]["value"] == pytest.approx(accuracy_score(targets, decided))
        assert shipped["micro_f1"]["value"] > 0.8
    config = json.loads((bundle / "config.json").read_text(encoding="utf-8"))
    assert config["problem_type"] == "multi_label_classification"


def test_thresholds_come_from_dev_and_from_the_torch_student(base: Path) -> None:
    """No other threshold of a label on the student's own outputs reaches a better micro F1."""
    store = base / "runs"
    facts = load_artifact(stage_directory(store, "evaluate")).facts
    student = open_tiny(stage_directory(store, "distill") / "model")
    probabilities = 1 / (1 + np.exp(-student.logits(DATASET.dev.texts).astype(np.float64)))
    targets = applies(DATASET.dev)
    shipped = read_manifest(stage_directory(store, "bundle")).thresholds
    assert list(facts["student"]["dev"]["thresholds"].values()) == shipped
    decided = probabilities >= np.array(shipped)
    reached = f1_score(targets, decided, average="micro")
    for label in range(3):
        for value in probabilities[:, label]:
            other = decided.copy()
            other[:, label] = probabilities[:, label] >= value
            assert f1_score(targets, other, average="micro") <= reached + 1e-9
    assert facts["student"]["test"]["thresholds"] == facts["student"]["dev"]["thresholds"]
    assert facts["teacher"]["dev"]["thresholds"] != facts["student"]["dev"]["thresholds"]
    assert facts["baseline"]["dev"]["thresholds_source"] == "tuned on dev for micro F1"
    predicted = np.load(stage_directory(store, "evaluate") / "student.test.npy")
    assert predicted.dtype == bool
    assert predicted.shape == (len(DATASET.test), 3)  # type: ignore[arg-type]


def test_the_server_answers_with_the_labels_that_apply(base: Path) -> None:
    bundle = stage_directory(base / "runs", "bundle")
    text = "thanks great it refund awful broken happy"
    with TestClient(create_app(bundle, Settings())) as client:
        body = client.post("/predict", json={"texts": [text, "the a my"]}).json()
        few = client.post("/predict", json={"text": text, "top_k": 1}).json()
    both, none = body["predictions"]
    assert set(both["labels"]) == {"angry", "glad"}
    assert none["labels"] == []
    assert [item["label"] for item in both["scores"]][2] == "calm"
    scores = [item["score"] for item in both["scores"]]
    assert scores == sorted(scores, reverse=True)
    assert both["labels"] == [item["label"] for item in both["scores"]][:2]
    assert sum(scores) > 1.1  # they are no distribution
    assert len(few["predictions"][0]["scores"]) == 1
    assert few["predictions"][0]["labels"] == both["labels"]


def test_the_card_says_on_what_the_thresholds_were_tuned(base: Path) -> None:
    card = (stage_directory(base / "runs", "bundle") / "README.md").read_text(encoding="utf-8")
    assert "A multilabel model" in card
    assert "were tuned on dev, so scores on dev are optimistic" in " ".join(card.split())
    assert "micro_f1 on test (95 %)" in card


def test_scoring_a_file(base: Path) -> None:
    bundle = stage_directory(base / "runs", "bundle")
    manifest = read_manifest(bundle)
    evaluation = score_file(bundle, base / "test.tsv", ["text"], "label", None)
    shipped = manifest.scores[manifest.model.form]["test"]
    assert evaluation.scores["micro_f1"].value == shipped["micro_f1"]["value"]
    assert "thresholds: the bundle's own" in evaluation_lines(evaluation)
    semicolons = base / "semicolons.tsv"
    lines = (base / "test.tsv").read_text(encoding="utf-8").replace(",", ";")
    semicolons.write_text(lines, encoding="utf-8")
    again = score_file(bundle, semicolons, ["text"], "label", None, ";")
    assert again.scores == evaluation.scores
    folder = stage_directory(base / "runs", "distill") / "model"
    plain = score_file(folder, base / "test.tsv", ["text"], "label", 24)
    assert "thresholds: 0.5 for every label" in evaluation_lines(plain)
    logits = open_tiny(folder).logits(DATASET.test.texts)  # type: ignore[union-attr]
    micro = f1_score(applies(DATASET.test), logits >= 0, average="micro")
    assert plain.scores["micro_f1"].value == pytest.approx(micro)


def test_the_teacher_is_measured_against_the_best_constant_answer(base: Path) -> None:
    facts = load_artifact(stage_directory(base / "runs", "teacher")).facts
    sizes = sorted((applies(DATASET.dev).sum(axis=0)).tolist(), reverse=True)
    rows = len(DATASET.dev)
    constants = [2 * sum(sizes[:k]) / (k * rows + sum(sizes)) for k in (1, 2, 3)]
    reached = facts["dev"]["scores"]["micro_f1"]["value"]
    margin = reached - max(constants)
    check_teacher(facts, DATASET, margin - 0.001)
    with pytest.raises(TeacherError, match=re.escape(f"gives {max(constants):.3f}")):
        check_teacher(facts, DATASET, margin + 0.001)


def test_one_threshold_for_all_remakes_no_model(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path, dirs_exist_ok=True)
    store = tmp_path / "runs"
    before = {folder.name for folder in store.iterdir()}
    bundle = run(tmp_path, {"evaluate.thresholds": 0.25})
    stages = {name.partition("-")[0] for name in {f.name for f in store.iterdir()} - before}
    assert stages == {"evaluate", "export", "quantize", "bundle"}
    manifest = read_manifest(bundle)
    assert manifest.thresholds == [0.25, 0.25, 0.25]
    assert "when its probability is at least 0.25" in (bundle / "README.md").read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ({"min_retention": 1.5}, "gate 1 .* micro_f1 retention"),
        ({"min_value": 0.1, "max_quantization_drop": 0.2, "max_size_bytes": 9}, "gate 2"),
    ],
)
def test_a_gate_that_fails(base: Path, gate: dict[str, Any], message: str) -> None:
    before = {folder.name for folder in (base / "runs").glob("bundle-*")}
    with pytest.raises(GateFailedError, match=f"(?s){message}"):
        run(base, {"gate": gate})
    assert {folder.name for folder in (base / "runs").glob("bundle-*")} == before


def test_an_adopted_teacher_trained_for_single_labels_is_refused(tmp_path: Path) -> None:
    model = tiny_bert()
    model.config.problem_type = "single_label_classification"
    save_tiny(model, tmp_path / "teacher")
    write_files(tmp_path, DATASET)
    with pytest.raises(TeacherError, match=r"trained for single_label_.* data\.task"):
        run(tmp_path, {"teacher.fine_tune": False})
