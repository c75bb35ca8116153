"""150 classes through data, evaluation, gate, bundle and model card."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.minimal_recipe import recipe_tree
from helpers.tiny_models import FILLERS, save_tiny, tiny_bert
from helpers.tiny_teachers import adopted, make
from sklearn.metrics import confusion_matrix, f1_score

from factory.bundle.assemble import BundleParts, copy_files, make_manifest, ship_only
from factory.bundle.measurements import RunMeasurements
from factory.bundle.model_card import card_text
from factory.data.dataset import Dataset
from factory.data.load import load_dataset
from factory.evaluation import gate
from factory.evaluation.evaluate import evaluate_logits
from factory.evaluation.metrics import Score
from factory.export.onnx import export_onnx
from factory.recipe.data import DataSettings
from factory.recipe.file import parse_recipe
from factory.recipe.gate import GateSettings
from serving.bundle import write_manifest
from serving.predictor import Predictor

CLASSES = 150
NAMES = tuple(f"intent {number:03}" for number in range(CLASSES))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Path]:
    """Six rows per class, from a file, a sixth of them held out."""
    folder = tmp_path_factory.mktemp("many")
    random = np.random.default_rng(3)
    rows = [
        f"{' '.join(random.choice(FILLERS, 4))} {number} {copy}\t{name}"
        for copy in range(6)
        for number, name in enumerate(NAMES)
    ]
    (folder / "train.tsv").write_text("text\tlabel\n" + "\n".join(rows) + "\n", "utf-8")
    settings = DataSettings(train="train.tsv", dev_fraction=1 / 6)
    dataset, _ = load_dataset(settings, folder, folder / "cache", lambda line: None)
    return dataset, folder


def test_evaluation_and_gate(loaded: tuple[Dataset, Path]) -> None:
    """Ten classes are predicted as their neighbour."""
    dev = loaded[0].dev
    targets = np.array(dev.targets)
    predicted = np.where(targets < 10, targets + 1, targets)
    logits = np.eye(CLASSES, dtype=np.float32)[predicted]
    evaluation = evaluate_logits(logits, dev, NAMES)
    assert evaluation.scores["accuracy"].value == pytest.approx(140 / 150)
    assert evaluation.scores["macro_f1"].value == pytest.approx(
        f1_score(targets, predicted, average="macro")
    )
    assert (np.array(evaluation.confusion) == confusion_matrix(targets, predicted)).all()
    assert len(evaluation.per_class) == CLASSES
    text = json.dumps(evaluation.to_facts(), allow_nan=False)
    assert len(text) < 200_000
    recalls = gate.class_recalls(evaluation)
    measured = gate.Measurements(value=140 / 150, teacher=1.0, class_recalls=recalls)
    settings = GateSettings(min_value=0.9, min_class_recall=0.5)
    value, worst = gate.check_rules(settings, "accuracy", measured)
    assert value.passed
    assert not worst.passed
    assert "lowest recall of a class 0.0000 (intent 000)" in worst.text


def test_model_and_bundle(loaded: tuple[Dataset, Path], tmp_path: Path) -> None:
    """A teacher of 150 outputs is adopted by name and exported; the bundle has all labels."""
    dataset = loaded[0]
    shuffled = [NAMES[number] for number in np.random.default_rng(1).permutation(CLASSES)]
    folder = save_tiny(tiny_bert(shuffled), tmp_path / "adopted")
    facts = make(tmp_path / "teacher", folder, adopted(), dataset)
    assert len(facts["dev"]["confusion"]) == CLASSES
    model = tmp_path / "teacher" / "model"
    export_onnx(model, tmp_path / "model.onnx", opset=17)
    directory = tmp_path / "bundle"
    directory.mkdir()
    copy_files(directory, model, {"fp32": tmp_path / "model.onnx"})
    score = Score(**facts["dev"]["scores"]["accuracy"])
    recipe = parse_recipe(recipe_tree({"data.max_length": 24}))
    parts = BundleParts(recipe, "00", dataset, lineage={})
    measured = RunMeasurements(
        scores={"teacher": {"dev": {"accuracy": score}}}, size_bytes={"teacher": 1}
    )
    manifest = make_manifest(directory, parts, "fp32", ship_only(directory, "fp32"), measured)
    write_manifest(directory, manifest)
    predictor = Predictor.open(directory)
    assert predictor.labels == NAMES
    (answer,) = predictor.predict(["the shop 3"])
    assert len(answer.scores) == CLASSES
    assert sum(answer.scores) == pytest.approx(1.0)
    card = card_text(manifest)
    assert max(map(len, card.splitlines())) < 1000
    assert "intent 029 and 120 more, 150 in all" in card
