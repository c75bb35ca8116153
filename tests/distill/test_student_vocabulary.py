"""A student that reads with another vocabulary than its teacher, and teachers that are no BERT."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.non_bert_models import (
    OTHER_VOCABULARY,
    byte_level_tokenizer,
    other_tokenizer,
    save_foreigner,
    tiny_distilbert,
    tiny_roberta,
)
from helpers.tiny_models import (
    LABELS,
    MAX_LENGTH,
    accuracy,
    open_tiny,
    save_tiny,
    tiny_bert,
    tiny_classifier,
    tiny_tokenizer,
)
from tiny_runs import LONG, QUICK, SMALL, losses_of

from factory.data.dataset import Dataset
from factory.distill.baseline import train_baseline
from factory.distill.student import student_vocabulary
from factory.distill.tinybert import distill
from factory.errors import RecipeError
from factory.models.classifier import TorchClassifier
from factory.models.source import ModelSource
from factory.recipe.training import DistillSettings, PredictionSettings, StudentSettings

SHAPE = {"layers": 2, "hidden": 16, "heads": 4, "intermediate": 32}
FIELDS = {"num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 32}
SKIPPED = "the student's vocabulary is not the teacher's"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A BERT of the student's shape with a vocabulary and a position table of its own."""
    model = tiny_bert(
        seed=5, vocab_size=len(OTHER_VOCABULARY), max_position_embeddings=MAX_LENGTH, **FIELDS
    )
    return save_foreigner(model, other_tokenizer(), tmp_path / "checkpoint")


def source_of(folder: Path) -> ModelSource:
    return ModelSource(str(folder), None, "test")


def settings_of(folder: Path) -> StudentSettings:
    return StudentSettings(**SHAPE, start=str(folder))


def run(
    directory: Path,
    teacher: TorchClassifier,
    folder: Path,
    dataset: Dataset,
    settings: DistillSettings,
    **more: Any,
) -> dict[str, Any]:
    directory.mkdir()
    student = settings_of(folder)
    return distill(directory, teacher, dataset.train, student, source_of(folder), settings, **more)


def small(dataset: Dataset) -> Dataset:
    return replace(dataset, train=SMALL.train)


def test_a_student_with_its_own_vocabulary_learns_from_logits(
    tmp_path: Path,
    teacher: TorchClassifier,
    checkpoint: Path,
    dataset: Dataset,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # annotations that say nothing: what the student knows it has from the teacher
    blind = replace(dataset, train=replace(dataset.train, targets=[0] * len(dataset.train)))
    facts = run(tmp_path / "run", teacher, checkpoint, blind, LONG)
    assert facts["intermediate"] == f"skipped: {SKIPPED}"
    assert facts["steps"]["intermediate"] == 0
    assert "layer_map" not in facts
    told = [line for line in capsys.readouterr().err.splitlines() if "skipped" in line]
    assert told == [f"intermediate phase skipped: {SKIPPED}; the student learns from logits alone"]
    assert set(losses_of(tmp_path / "run")) == {"prediction.total"}
    student = open_tiny(tmp_path / "run" / "model")
    assert student.tokenizer.get_vocab() == other_tokenizer().get_vocab()
    assert student.model.config.vocab_size == len(OTHER_VOCABULARY)
    assert student.model.config.max_position_embeddings == MAX_LENGTH
    assert accuracy(student, dataset.dev) > 0.8


def test_unlabelled_rows_are_read_by_both(
    tmp_path: Path, teacher: TorchClassifier, checkpoint: Path, dataset: Dataset
) -> None:
    more = dataset.dev.inputs()[:7]
    facts = run(tmp_path / "run", teacher, checkpoint, small(dataset), QUICK, unlabelled=more)
    assert facts["rows"] == len(SMALL.train) + 7
    stored = np.load(tmp_path / "run" / "teacher_logits.npy")
    np.testing.assert_allclose(stored[-7:], teacher.logits(more), atol=1e-5)


@pytest.mark.parametrize("start", ["random", "same"])
def test_the_baseline_reads_with_the_students_tokenizer(
    tmp_path: Path, teacher: TorchClassifier, checkpoint: Path, start: Any
) -> None:
    settings = QUICK.model_copy(update={"baseline": start})
    facts = train_baseline(
        tmp_path, teacher, SMALL.train, settings_of(checkpoint), source_of(checkpoint), settings
    )
    assert facts["steps"] == 4  # of the prediction phase alone
    saved = open_tiny(tmp_path / "model")
    assert saved.tokenizer.get_vocab() == other_tokenizer().get_vocab()
    assert saved.model.config.vocab_size == len(OTHER_VOCABULARY)


def test_the_same_size_is_not_the_same_vocabulary(tmp_path: Path, teacher: TorchClassifier) -> None:
    tokenizer = tiny_tokenizer()
    numbers = tokenizer.get_vocab()
    swapped = (
        tokenizer.backend_tokenizer.to_str()
        .replace('"broken"', '"@"')
        .replace('"great"', '"broken"')
    )
    assert len(numbers) == teacher.model.config.vocab_size
    folder = save_tiny(tiny_bert(seed=5, **FIELDS), tmp_path / "checkpoint")
    same = student_vocabulary(settings_of(folder), source_of(folder), teacher)
    assert same.logits_only is None
    assert same.tokenizer is teacher.tokenizer
    (folder / "tokenizer.json").write_text(swapped.replace('"@"', '"great"'), encoding="utf-8")
    (folder / "vocab.txt").unlink(missing_ok=True)
    other = student_vocabulary(settings_of(folder), source_of(folder), teacher)
    assert other.logits_only == SKIPPED
    assert other.tokenizer.get_vocab()["great"] == numbers["broken"]


def test_no_prediction_phase_leaves_nothing_to_learn_from(
    tmp_path: Path, teacher: TorchClassifier, checkpoint: Path, dataset: Dataset
) -> None:
    settings = QUICK.model_copy(update={"prediction": PredictionSettings(epochs=0)})
    with pytest.raises(RecipeError, match=r"distill\.prediction\.epochs") as caught:
        run(tmp_path / "run", teacher, checkpoint, dataset, settings)
    assert "set it above 0, or student.start to a checkpoint" in str(caught.value)


def test_more_tokens_than_the_students_position_table_are_refused(
    tmp_path: Path, teacher: TorchClassifier
) -> None:
    model = tiny_bert(
        seed=5, vocab_size=len(OTHER_VOCABULARY), max_position_embeddings=MAX_LENGTH - 1, **FIELDS
    )
    folder = save_foreigner(model, other_tokenizer(), tmp_path)
    with pytest.raises(RecipeError, match=r"data\.max_length") as caught:
        student_vocabulary(settings_of(folder), source_of(folder), teacher)
    assert "24, but the student's checkpoint" in str(caught.value)
    assert "at most 23 tokens; lower it to 23 or less" in str(caught.value)


def test_a_checkpoint_without_a_tokenizer_has_the_teachers(
    tmp_path: Path, teacher: TorchClassifier
) -> None:
    tiny_bert(seed=5, **FIELDS).save_pretrained(tmp_path)
    found = student_vocabulary(settings_of(tmp_path), source_of(tmp_path), teacher)
    assert found.tokenizer is teacher.tokenizer
    assert found.logits_only is None


# teachers that are no BERT


def roberta() -> TorchClassifier:
    return TorchClassifier(tiny_roberta(), byte_level_tokenizer(), MAX_LENGTH)


@pytest.mark.parametrize("start", ["teacher", "random"])
def test_a_teacher_that_is_no_bert_has_nothing_to_start_from(start: str) -> None:
    with pytest.raises(RecipeError, match=r"student\.start") as caught:
        student_vocabulary(StudentSettings(**SHAPE, start=start), None, roberta())
    (problem,) = caught.value.problems
    assert problem.startswith(f'"{start}", but the teacher is a roberta model')
    assert "name a BERT checkpoint with its tokenizer" in problem


def test_it_lends_no_tokenizer_either(tmp_path: Path) -> None:
    tiny_bert(seed=5, **FIELDS).save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="holds no fast tokenizer"):
        student_vocabulary(settings_of(tmp_path), source_of(tmp_path), roberta())


def test_layers_of_another_kind_are_not_compared_even_in_one_vocabulary(
    tmp_path: Path, dataset: Dataset
) -> None:
    folder = save_tiny(tiny_bert(seed=5, **FIELDS), tmp_path / "checkpoint")
    model = tiny_distilbert(LABELS, len(tiny_tokenizer()))
    facts = run(tmp_path / "run", tiny_classifier(model), folder, small(dataset), QUICK)
    assert facts["intermediate"].startswith("skipped: the layers of a distilbert teacher")
    assert open_tiny(tmp_path / "run" / "model").model.config.model_type == "bert"
