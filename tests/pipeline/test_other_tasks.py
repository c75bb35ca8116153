"""Runs for pairs, for regression, for a rare class, and with an adopted teacher."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.pipeline_run import run_here, stage_directory
from helpers.tiny_models import (
    LABELS,
    open_tiny,
    save_tiny,
    tiny_bert,
    tiny_dataset,
    tiny_regression,
    tiny_split,
)

from factory.data.dataset import Dataset, Split, select
from factory.errors import TeacherError
from factory.store import load_artifact
from serving.bundle import read_manifest
from serving.predictor import Predictor

pytestmark = pytest.mark.usefixtures("few_timings")


def test_pairs(tmp_path: Path) -> None:
    """The label stands in the first text; read the other way round, the answers are others."""

    def paired(split: Split) -> Split:
        first = [text.split() for text in split.texts]
        return replace(
            split,
            texts=[" ".join(words[: len(words) // 2]) + " the" for words in first],
            text_pairs=[
                " ".join(words[len(words) // 2 :]) + f" b{n}" for n, words in enumerate(first)
            ],
        )

    plain = tiny_dataset()
    dataset = replace(plain, train=paired(plain.train), dev=paired(plain.dev))
    save_tiny(tiny_bert(), tmp_path / "teacher")
    bundle = run_here(
        tmp_path,
        dataset,
        {
            "data.text": ["text", "text_pair"],
            "data.test": ...,
            "data.allow_duplicates": True,
            "gate": {"min_value": 0.7, "max_quantization_drop": 0.2},
        },
    )
    manifest = read_manifest(bundle)
    assert manifest.text_pair
    predictor = Predictor.open(bundle)
    pairs = dataset.dev.inputs()
    found = predictor.logits(pairs).argmax(axis=1)
    accuracy = float((found == np.array(dataset.dev.targets)).mean())
    assert accuracy >= 0.7
    assert manifest.scores["int8-static"]["dev"]["accuracy"]["value"] == pytest.approx(accuracy)
    student = open_tiny(stage_directory(tmp_path / "runs", "distill") / "model")
    ids = [item.token_type_ids for item in predictor.tokenize(pairs[:1])]
    assert set(ids[0]) == {0, 1}  # the second text is marked as such
    fp32 = student.logits(pairs)
    assert (fp32.argmax(axis=1) == found).mean() > 0.9


def test_regression(tmp_path: Path) -> None:
    dataset = tiny_regression(192, 60)
    save_tiny(tiny_bert(("LABEL_0",)), tmp_path / "teacher")
    bundle = run_here(
        tmp_path,
        dataset,
        {
            "data.text": ["text", "text_pair"],
            "data.task": "regression",
            "data.test": ...,
            "data.allow_duplicates": True,
            "teacher.epochs": 8.0,
            "gate": {"min_retention": 0.6, "max_quantization_drop": 0.2},
        },
    )
    manifest = read_manifest(bundle)
    assert (manifest.task, manifest.labels) == ("regression", ["value"])
    assert manifest.gate[0]["text"].startswith("min_retention: spearman retention ")
    predictor = Predictor.open(bundle)
    values = [prediction.scores[0] for prediction in predictor.predict(dataset.dev.inputs())]
    targets = np.array(dataset.dev.targets)
    by_target = {
        target: np.mean(np.array(values)[targets == target]) for target in (-2.0, 0.0, 2.0)
    }
    assert by_target[-2.0] < by_target[0.0] < by_target[2.0]
    pearson = float(np.corrcoef(values, targets)[0, 1])
    assert manifest.scores["int8-static"]["dev"]["pearson"]["value"] == pytest.approx(
        pearson, abs=1e-6
    )
    config = json.loads((bundle / "config.json").read_text(encoding="utf-8"))
    assert config["problem_type"] == "regression"


def permuted_teacher(trained: Path, folder: Path, names: tuple[str, ...]) -> Path:
    """The learned teacher with its outputs in another order, under the given names."""
    order = [2, 0, 1]  # output 0 means glad, 1 angry, 2 calm
    model = open_tiny(trained).model
    model.classifier.weight.data = model.classifier.weight.data[order]
    model.classifier.bias.data = model.classifier.bias.data[order]
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: number for number, name in enumerate(names)}
    return save_tiny(model, folder)


def test_an_adopted_teacher_with_outputs_in_another_order(
    tmp_path: Path, trained_folder: Path
) -> None:
    """Names in another case and order; nothing is fine-tuned, and the labels come out right."""
    permuted_teacher(trained_folder, tmp_path / "teacher", ("Glad", "Angry", "Calm"))
    dataset = replace(tiny_dataset(), test=tiny_split("test", 45, seed=5))
    bundle = run_here(tmp_path, dataset, {"teacher.fine_tune": False})
    store = tmp_path / "runs"
    adopted = open_tiny(stage_directory(store, "teacher") / "model")
    original = open_tiny(trained_folder)
    texts = dataset.dev.texts
    np.testing.assert_allclose(adopted.logits(texts), original.logits(texts), atol=1e-6)
    assert adopted.model.config.id2label == dict(enumerate(LABELS))
    facts = load_artifact(stage_directory(store, "teacher")).facts
    assert facts["fine_tuned_here"] is False
    predictor = Predictor.open(bundle)
    assert predictor.labels == LABELS
    answers = predictor.predict(["thanks great love it", "broken awful refund", "when colour"])
    best = [predictor.labels[int(np.argmax(answer.scores))] for answer in answers]
    assert best == ["glad", "angry", "calm"]


def test_an_adopted_teacher_with_wrong_names_is_refused(
    tmp_path: Path, trained_folder: Path
) -> None:
    permuted_teacher(trained_folder, tmp_path / "teacher", ("angry", "calm", "glad"))
    changes = {"data.test": ..., "teacher.fine_tune": False}
    with pytest.raises(TeacherError, match=r"outputs may be in another order.*teacher\.labels"):
        run_here(tmp_path, tiny_dataset(), changes)
    assert not list((tmp_path / "runs").glob("distill-*"))
    changes["teacher.labels"] = ["glad", "angry", "calm"]
    adopted = run_here(tmp_path, tiny_dataset(), changes, until="teacher")
    texts = tiny_dataset().dev.texts
    np.testing.assert_allclose(
        open_tiny(adopted / "model").logits(texts), open_tiny(trained_folder).logits(texts),
        atol=1e-6,
    )  # fmt: skip


def rare(split: Split) -> Split:
    """Two classes: angry, and glad with one row for seven of the other."""
    rows = [n for n, t in enumerate(split.targets) if t == 0 or (t == 2 and n % 21 == 2)]
    chosen = select(split, split.name, rows)
    return replace(chosen, targets=[int(target == 2) for target in chosen.targets])


def test_a_rare_class_from_weights_to_the_gate_on_its_f1(tmp_path: Path) -> None:
    splits = {name: rare(tiny_split(name, 336, seed)) for name, seed in (("train", 3), ("dev", 4))}
    dataset = Dataset("classification", ("angry", "glad"), splits["train"], splits["dev"], None)
    assert np.bincount(dataset.dev.targets).tolist() == [112, 16]
    save_tiny(tiny_bert(("LABEL_0", "LABEL_1")), tmp_path / "teacher")
    changes = {
        "data.test": ...,
        "data.allow_duplicates": True,
        "teacher.class_weights": "balanced",
        "teacher.epochs": 10.0,
        "distill.intermediate.epochs": 8.0,
        "distill.prediction.epochs": 8.0,
        "gate": {"metric": "f1", "positive_label": "glad", "min_value": 0.6},
        "gate.max_quantization_drop": 0.3,
    }
    bundle = run_here(tmp_path, dataset, changes)
    manifest = read_manifest(bundle)
    assert manifest.gate[0]["text"].startswith("min_value: f1 ")
    answered = Predictor.open(bundle).logits(dataset.dev.inputs()).argmax(axis=1) == 1
    wanted = np.array(dataset.dev.targets) == 1
    f1 = 2 * (answered & wanted).sum() / (answered.sum() + wanted.sum())
    assert manifest.scores["int8-static"]["dev"]["f1"]["value"] == pytest.approx(f1)


def test_more_tokens_than_the_teacher_reads_are_refused(
    tmp_path: Path, trained_folder: Path
) -> None:
    """The tiny teacher has 32 positions; without the check torch fails on the first long text."""
    permuted_teacher(trained_folder, tmp_path / "teacher", ("glad", "angry", "calm"))
    changes = {"data.max_length": 33, "data.test": ..., "teacher.fine_tune": False}
    with pytest.raises(TeacherError, match=r"data\.max_length is 33, but .* at most 32 tokens"):
        run_here(tmp_path, tiny_dataset(), changes)
