"""Defects of the TinyBERT research code that no room's own tests rule out."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.pipeline_run import line_recipe
from helpers.tiny_models import (
    MAX_LENGTH,
    open_tiny,
    save_tiny,
    tiny_bert,
    tiny_classifier,
    tiny_dataset,
    tiny_split,
)
from safetensors.torch import load_file

from factory.data.corpus import make_corpus
from factory.data.dataset import Dataset
from factory.data.shards import open_rows
from factory.distill import baseline, tinybert
from factory.distill.general import general_distill, load_base_teacher
from factory.evaluation.evaluate import evaluate
from factory.models.classifier import TorchClassifier
from factory.models.source import ModelSource
from factory.recipe.training import (
    DistillSettings,
    IntermediateSettings,
    PredictionSettings,
    StudentSettings,
    TeacherSettings,
)
from factory.teacher.fine_tune import make_teacher

ROOT = Path(__file__).parents[2]
STUDENT = StudentSettings(layers=1, hidden=16, heads=4, intermediate=32, start="random")
SETTINGS = DistillSettings(
    batch_size=16,
    intermediate=IntermediateSettings(epochs=1),
    prediction=PredictionSettings(epochs=1, learning_rate=1e-2),
)


def test_scoring_one_split_leaves_the_next_alone(teacher: TorchClassifier) -> None:
    """Scores depend on the split, not on which splits were scored before."""
    dev, test = tiny_split("dev", 30, seed=1), tiny_split("test", 45, seed=2)
    labels = tuple(teacher.model.config.id2label.values())
    first = evaluate(teacher, dev, labels)
    other = evaluate(teacher, test, labels)
    again = evaluate(teacher, dev, labels)
    assert (first.split, first.rows, other.split, other.rows) == ("dev", 30, "test", 45)
    assert first.to_facts() == again.to_facts()
    assert np.array_equal(first.predicted, again.predicted)
    expected = teacher.logits(dev.texts).argmax(axis=1) == np.array(dev.targets)
    assert first.scores["accuracy"].value == expected.mean()


def test_the_student_is_the_one_after_the_last_step(
    tmp_path: Path, teacher: TorchClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    final: dict[str, torch.Tensor] = {}
    original = tinybert.train

    def remember(phase: Any, loss: Any, *rest: Any) -> Any:
        points = original(phase, loss, *rest)
        assert points[-1].step == 4
        if phase.name == "prediction":
            final["pooler"] = loss.student.bert.pooler.dense.weight.clone()
            final["classifier"] = loss.student.classifier.weight.clone()
        return points

    monkeypatch.setattr(tinybert, "train", remember)
    train = tiny_dataset(60, 3).train
    tinybert.distill(tmp_path, teacher, train, STUDENT, None, SETTINGS)
    saved = load_file(tmp_path / "model" / "model.safetensors")
    assert torch.equal(saved["bert.pooler.dense.weight"], final["pooler"])
    assert torch.equal(saved["classifier.weight"], final["classifier"])


@pytest.mark.parametrize("stage", [tinybert.distill, baseline.train_baseline])
def test_training_is_given_no_rows_to_select_on(stage: Any) -> None:
    """One split comes in, and it is the training split."""
    given = inspect.signature(stage).parameters.values()
    from_data = [p.name for p in given if "Split" in str(p.annotation) or "Dataset" in str(p)]
    assert from_data == ["labelled"]


def files_below(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def test_training_writes_only_below_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data: Dataset = tiny_dataset(60, 30)
    base = save_tiny(tiny_bert(), tmp_path / "base")
    for name in ("working", "home", "made", "student", "baseline", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "working")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    before = files_below(base)
    source = ModelSource(str(base), None, "test")
    settings = TeacherSettings(model="base", epochs=1.0)
    make_teacher(tmp_path / "made", source, settings, data, MAX_LENGTH, "cpu")
    teacher = open_tiny(tmp_path / "made" / "model")
    tinybert.distill(tmp_path / "student", teacher, data.train, STUDENT, None, SETTINGS)
    baseline.train_baseline(tmp_path / "baseline", teacher, data.train, STUDENT, None, SETTINGS)
    assert files_below(base) == before
    for name in ("working", "home", "temporary"):
        assert files_below(tmp_path / name) == set(), name
    top = {path.name for path in tmp_path.iterdir()}
    assert top == {"base", "working", "home", "made", "student", "baseline", "temporary"}


def test_general_distillation_writes_only_below_its_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_tiny(tiny_bert(), tmp_path / "base")
    texts = "\n".join(tiny_dataset(60, 30).train.texts)
    (tmp_path / "corpus.txt").write_text(texts, encoding="utf-8")
    for name in ("working", "home", "packed", "general", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "working")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    before = files_below(base)
    source = ModelSource(str(base), None, "test")
    recipe = line_recipe({"general.corpus": "corpus.txt", "general.max_length": MAX_LENGTH})
    assert recipe.general is not None
    make_corpus(tmp_path / "packed", recipe.general, source, tmp_path)
    teacher = load_base_teacher(source, recipe.general, "cpu")
    general_distill(tmp_path / "general", teacher, open_rows(tmp_path / "packed"), recipe)
    assert files_below(base) == before
    for name in ("working", "home", "temporary"):
        assert files_below(tmp_path / name) == set(), name
    top = {path.name for path in tmp_path.iterdir()}
    assert top == {
        "base", "corpus.txt", "working", "home", "packed", "general", "temporary",
    }  # fmt: skip


def test_every_requirement_has_both_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    requirements = [*project["dependencies"], *(line for extra in extras for line in extra)]
    assert len(requirements) > 10
    for line in requirements:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+(\[[a-z]+\])?>=[0-9.]+,<[0-9.]+(; .+)?", line), line


def test_a_random_teacher_is_not_a_trained_one(teacher: TorchClassifier) -> None:
    """Guards the tests above: their teacher knows the data, a random model does not."""
    dev = tiny_split("dev", 30, seed=1)
    labels = tuple(teacher.model.config.id2label.values())
    assert evaluate(teacher, dev, labels).scores["accuracy"].value > 0.9
    random = tiny_classifier(tiny_bert())
    assert evaluate(random, dev, labels).scores["accuracy"].value < 0.6
