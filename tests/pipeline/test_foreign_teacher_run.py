"""A run with a teacher that is not a BERT, and a student with its own tokenizer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.non_bert_models import (
    OTHER_VOCABULARY,
    byte_level_tokenizer,
    other_tokenizer,
    save_foreigner,
    tiny_roberta,
)
from helpers.pipeline_run import line_recipe, run_here, stage_directory, write_files
from helpers.tiny_models import open_tiny, tiny_bert, tiny_dataset

from factory import pipeline
from factory.errors import FactoryError
from factory.store import Store, load_artifact
from factory.teacher import fine_tune
from serving.predictor import Predictor

CHANGES = {
    "data.test": ...,
    "teacher.epochs": 8.0,
    "teacher.learning_rate": 3e-3,
    "student.start": "checkpoint",
    "distill.prediction.epochs": 10.0,
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with a teacher to fine-tune and a student checkpoint."""
    save_foreigner(tiny_roberta(), byte_level_tokenizer(), tmp_path / "teacher")
    student = tiny_bert(
        seed=5, vocab_size=len(OTHER_VOCABULARY), num_hidden_layers=2, intermediate_size=32
    )
    save_foreigner(student, other_tokenizer(), tmp_path / "checkpoint")
    return tmp_path


@pytest.mark.usefixtures("few_timings")
def test_a_bundle_with_the_students_tokenizer(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = run_here(base, tiny_dataset(), CHANGES)
    assert "intermediate phase skipped: the student's vocabulary is not" in capsys.readouterr().err
    student = load_artifact(stage_directory(base / "runs", "distill"))
    assert student.facts["intermediate"].startswith("skipped: ")
    predictor = Predictor.open(bundle)
    texts = tiny_dataset().dev.inputs()
    ids = [item.input_ids for item in predictor.tokenize(texts[:5])]
    assert ids == other_tokenizer()(texts[:5])["input_ids"]
    found = predictor.logits(texts).argmax(axis=1)
    assert float((found == np.array(tiny_dataset().dev.targets)).mean()) > 0.7
    in_torch = open_tiny(student.directory / "model").logits(texts).argmax(axis=1)
    assert (in_torch == found).mean() > 0.9


@pytest.mark.parametrize("start", ["teacher", "random"])
def test_a_start_that_needs_a_bert_is_refused_before_training(
    base: Path, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(base, tiny_dataset())
    recipe = line_recipe({**CHANGES, "student.start": start})
    monkeypatch.setattr(fine_tune, "train", None)
    with pytest.raises(FactoryError, match=r"a roberta model.*set student\.start to a BERT"):
        pipeline.run(recipe, base, Store(base / "runs"), "cpu")
