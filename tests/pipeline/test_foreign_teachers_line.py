"""The whole line from teachers that are no BERT to a student with its own tokenizer."""

from __future__ import annotations

from pathlib import Path

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
from helpers.pipeline_run import factory_here, stage_directory, write_files, write_recipe
from helpers.tiny_models import open_tiny, tiny_bert, tiny_dataset, tiny_tokenizer

from factory.store import load_artifact
from serving.predictor import Predictor


def prepare(directory: Path, kind: str, start: str) -> Path:
    """Files, a teacher to fine-tune, a student checkpoint, and the recipe."""
    write_files(directory, tiny_dataset())
    if kind == "roberta":
        save_foreigner(tiny_roberta(), byte_level_tokenizer(), directory / "teacher")
    else:
        tokenizer = tiny_tokenizer()
        model = tiny_distilbert(("LABEL_0", "LABEL_1"), len(tokenizer))
        save_foreigner(model, tokenizer, directory / "teacher")
    student = tiny_bert(
        seed=5, vocab_size=len(OTHER_VOCABULARY), num_hidden_layers=2, intermediate_size=32
    )
    save_foreigner(student, other_tokenizer(), directory / "checkpoint")
    changes = {
        "data.test": ...,
        "teacher.epochs": 8.0,
        "teacher.learning_rate": 3e-3,
        "student.start": start,
        "distill.prediction.epochs": 10.0,
        "distill.baseline": "random",
    }
    return write_recipe(directory / "recipe.toml", changes)


# of the Trainer, whose checkpoints come faster here than it expects
@pytest.mark.filterwarnings("ignore:mtime may not be reliable")
@pytest.mark.parametrize("kind", ["roberta", "distilbert"])
def test_a_bundle_with_the_students_tokenizer(tmp_path: Path, kind: str) -> None:
    recipe = prepare(tmp_path, kind, "checkpoint")
    result = factory_here("run", recipe, "--store", tmp_path / "runs")
    assert result.exit_code == 0, result.exception or result.stderr
    assert "intermediate phase skipped: the student's vocabulary is not" in result.stderr
    student = load_artifact(stage_directory(tmp_path / "runs", "distill"))
    assert student.facts["intermediate"].startswith("skipped: ")
    predictor = Predictor.open(result.stdout.strip())
    texts = tiny_dataset().dev.inputs()
    ids = [item.input_ids for item in predictor.tokenize(texts[:5])]
    assert ids == other_tokenizer()(texts[:5])["input_ids"]
    found = predictor.logits(texts).argmax(axis=1)
    assert float((found == np.array(tiny_dataset().dev.targets)).mean()) > 0.7
    in_torch = open_tiny(student.directory / "model").logits(texts).argmax(axis=1)
    assert (in_torch == found).mean() > 0.9


@pytest.mark.parametrize("start", ["teacher", "random"])
def test_a_start_the_teacher_cannot_give_stops_before_it_is_trained(
    tmp_path: Path, start: str
) -> None:
    recipe = prepare(tmp_path, "roberta", start)
    result = factory_here("run", recipe, "--store", tmp_path / "runs")
    assert (result.exit_code, result.stdout) == (1, "")
    error = result.stderr.splitlines()[-1]
    assert error.startswith("error: teacher.model teacher is a roberta model")
    assert "set student.start to a BERT checkpoint" in error
    assert not list((tmp_path / "runs").glob("teacher-*/checkpoints"))
