"""Both phases of task distillation from end to end on a tiny data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_models import (
    LABELS,
    accuracy,
    open_tiny,
    tiny_bert,
    tiny_dataset,
)
from tiny_runs import (
    QUICK,
    SETTINGS,
    STUDENT,
    PowerCut,
    losses_of,
    run,
    same,
    weights,
)
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from factory.data.dataset import Dataset
from factory.distill import tinybert
from factory.models.classifier import TorchClassifier
from factory.models.encoding import Batch
from factory.recipe.training import IntermediateSettings, PredictionSettings
from factory.training import trainer


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, trained_folder: Path, dataset: Dataset
) -> tuple[Path, dict[str, Any]]:
    """One whole distillation: its directory and its facts."""
    directory = tmp_path_factory.mktemp("finished")
    return directory, run(directory, open_tiny(trained_folder), dataset.train, SETTINGS)


# what comes out


def test_the_student_learns(finished: tuple[Path, dict[str, Any]], dataset: Dataset) -> None:
    assert accuracy(open_tiny(finished[0] / "model"), dataset.dev) > 0.8  # chance is 1/3


def test_a_derived_start_learns_too(
    tmp_path: Path, teacher: TorchClassifier, dataset: Dataset
) -> None:
    student = STUDENT.model_copy(update={"start": "teacher"})
    run(tmp_path, teacher, dataset.train, SETTINGS, student)
    assert accuracy(open_tiny(tmp_path / "model"), dataset.dev) > 0.8


def test_the_losses_fall(finished: tuple[Path, dict[str, Any]]) -> None:
    directory, facts = finished
    values = losses_of(directory)
    terms = ["embedding", "hidden.1", "attention.1", "hidden.2", "attention.2"]
    assert set(values) == {
        "intermediate.total",
        "prediction.total",
        *(f"intermediate.{term}" for term in terms),
    }
    for name, falling in values.items():
        if name == "prediction.total":  # its floor is the teacher's entropy, not 0
            assert np.mean(falling[-8:]) < 0.85 * np.mean(falling[:4])
        else:
            assert np.mean(falling[-8:]) < 0.6 * np.mean(falling[:4]), name
        assert facts["losses"][name]["first"] == pytest.approx(falling[0], rel=1e-5)
        assert facts["losses"][name]["last"] == pytest.approx(falling[-1], rel=1e-5)
    sums = np.sum([values[f"intermediate.{term}"] for term in terms], axis=0)
    np.testing.assert_allclose(sums, values["intermediate.total"], rtol=1e-4)


def test_the_facts(finished: tuple[Path, dict[str, Any]]) -> None:
    directory, facts = finished
    assert facts["layer_map"] == [2, 3]  # 1.5 goes up
    assert facts["rows"] == 210
    assert facts["steps"] == {"intermediate": 84, "prediction": 56}  # 14 an epoch
    assert facts["parameters"] == sum(value.size for value in weights(directory).values())
    json.dumps(facts)


def test_the_student_is_a_plain_bert_folder(
    finished: tuple[Path, dict[str, Any]], dataset: Dataset, trained_folder: Path
) -> None:
    """Opened without this package, and computed once more in numpy from the saved weights."""
    folder = finished[0] / "model"
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "bert"
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {str(number): label for number, label in enumerate(LABELS)}
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.is_fast
    for name in ("tokenizer.json", "vocab.txt"):
        assert (folder / name).is_file()
    teacher_tokenizer = AutoTokenizer.from_pretrained(trained_folder)
    saved = weights(finished[0])
    assert set(saved) == set(model.state_dict()) == set(tiny_bert(num_hidden_layers=2).state_dict())
    for text in dataset.dev.texts[:5]:
        encoded = tokenizer(text, return_tensors="pt")
        assert encoded["input_ids"].tolist() == [teacher_tokenizer(text)["input_ids"]]
        with torch.no_grad():
            output = model(**encoded, output_hidden_states=True)
        first = output.hidden_states[-1][0, 0].numpy()
        pooled = np.tanh(
            saved["bert.pooler.dense.weight"] @ first + saved["bert.pooler.dense.bias"]
        )
        logits = saved["classifier.weight"] @ pooled + saved["classifier.bias"]
        np.testing.assert_allclose(output.logits[0].numpy(), logits, atol=1e-5)


def test_nothing_of_the_training_stays(finished: tuple[Path, dict[str, Any]]) -> None:
    names = sorted(path.name for path in finished[0].iterdir())
    assert names == ["losses.csv", "model", "teacher_logits.npy"]


def test_the_shortest_run_leaves_a_student(tmp_path: Path, teacher: TorchClassifier) -> None:
    """Five rows, a batch of 16, one epoch: one step in each phase, and it counts."""
    split = tiny_dataset(5, 3).train
    facts = run(tmp_path / "one", teacher, split)
    assert facts["steps"] == {"intermediate": 1, "prediction": 1}
    none = QUICK.model_copy(
        update={
            "intermediate": IntermediateSettings(epochs=0),
            "prediction": PredictionSettings(epochs=0),
        }
    )
    untrained = run(tmp_path / "none", teacher, split, none)
    assert untrained["steps"] == {"intermediate": 0, "prediction": 0}
    before, after = weights(tmp_path / "none"), weights(tmp_path / "one")
    moved = [name for name in before if not np.array_equal(before[name], after[name])]
    assert {name.split(".")[0] for name in moved} == {"bert", "classifier"}


# the same again, and after an interruption


def test_two_runs_give_the_same_weights(tmp_path: Path, trained_folder: Path) -> None:
    for name, noise in (("first", 1), ("second", 2)):
        torch.manual_seed(noise)
        np.random.seed(noise)  # whatever ran before in the process
        run(tmp_path / name, open_tiny(trained_folder))
    assert same(weights(tmp_path / "first"), weights(tmp_path / "second"))
    assert losses_of(tmp_path / "first") == losses_of(tmp_path / "second")
    other = QUICK.model_copy(update={"seed": 4})
    run(tmp_path / "fourth", open_tiny(trained_folder), settings=other)
    assert not same(weights(tmp_path / "first"), weights(tmp_path / "fourth"))


@pytest.mark.parametrize(
    ("loss", "steps"),
    [
        (tinybert.IntermediateLoss, 2),
        (tinybert.PredictionLoss, 0),
        (tinybert.PredictionLoss, 3),
    ],
)
def test_an_interrupted_run_ends_with_the_same_weights(
    tmp_path: Path,
    trained_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    loss: Any,
    steps: int,
) -> None:
    """Cut in the intermediate phase, and before and in the prediction phase."""
    run(tmp_path / "whole", open_tiny(trained_folder))
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", -1.0)
    original = loss.forward
    left = [steps]

    def failing(self: Any, batch: Batch) -> dict[str, Tensor]:
        if not left[0]:
            raise PowerCut
        left[0] -= 1
        terms: dict[str, Tensor] = original(self, batch)
        return terms

    with monkeypatch.context() as patch:
        patch.setattr(loss, "forward", failing)
        with pytest.raises(PowerCut):
            run(tmp_path / "cut", open_tiny(trained_folder))
    assert list((tmp_path / "cut").glob("*.checkpoint"))
    torch.manual_seed(77)
    run(tmp_path / "cut", open_tiny(trained_folder))
    assert same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))
    assert losses_of(tmp_path / "cut") == losses_of(tmp_path / "whole")
    names = sorted(path.name for path in (tmp_path / "cut").iterdir())
    assert names == ["losses.csv", "model", "teacher_logits.npy"]
