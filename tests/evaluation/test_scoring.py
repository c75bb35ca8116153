"""Scoring a bundle or a model folder on a labelled file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.pipeline_run import Line, stage_directory, write_split
from helpers.tiny_models import LABELS, open_tiny, save_tiny, tiny_bert, tiny_regression, tiny_split

from factory.errors import DataError, FactoryError
from factory.evaluation.evaluate import evaluation_lines, score_file
from serving.bundle import read_manifest
from serving.errors import BundleError
from serving.predictor import Predictor


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Labelled rows that no model was trained on."""
    return write_split(tmp_path / "new.tsv", tiny_split("new", 40, seed=77), LABELS)


def expected_accuracy(predicted: list[int]) -> float:
    targets = np.array(tiny_split("new", 40, seed=77).targets)
    return float((np.array(predicted) == targets).mean())


def test_a_bundle(line: Line, rows: Path) -> None:
    evaluation = score_file(line.bundle, rows, ["text"], "label", None)
    answers = Predictor.open(line.bundle).predict(tiny_split("new", 40, seed=77).texts)
    accuracy = expected_accuracy([int(np.argmax(answer.scores)) for answer in answers])
    assert evaluation.scores["accuracy"].value == pytest.approx(accuracy)
    assert (evaluation.split, evaluation.rows) == ("new", 40)
    assert 0.5 < accuracy < 1.0 or evaluation.scores["mcc"].value > 0.5


def test_a_model_folder(line: Line, rows: Path) -> None:
    folder = stage_directory(line.store, "distill") / "model"
    evaluation = score_file(folder, rows, ["text"], "label", 24)
    logits = open_tiny(folder).logits(tiny_split("new", 40, seed=77).texts)
    assert evaluation.scores["accuracy"].value == pytest.approx(
        expected_accuracy(logits.argmax(axis=1).tolist())
    )


def test_the_dev_file_gives_the_manifests_score(line: Line) -> None:
    evaluation = score_file(line.bundle, line.recipe.with_name("dev.tsv"), ["text"], "label", None)
    recorded = read_manifest(line.bundle).scores["int8-static"]["dev"]["accuracy"]
    found = evaluation.scores["accuracy"]
    assert (found.value, found.low, found.high) == pytest.approx(
        (recorded["value"], recorded["low"], recorded["high"])
    )


def test_other_column_names(line: Line, rows: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "renamed.tsv"
    _, _, body = rows.read_text("utf-8").partition("\n")
    renamed.write_text(f"body\tqueue\n{body}", encoding="utf-8")
    plain = score_file(line.bundle, rows, ["text"], "label", None)
    found = score_file(line.bundle, renamed, ["body"], "queue", None)
    assert found.scores["accuracy"] == plain.scores["accuracy"]


def test_a_damaged_bundle_is_not_scored(line: Line, tmp_path: Path, rows: Path) -> None:
    bundle = stage_directory(line.copy_store(tmp_path), "bundle")
    (bundle / "vocab.txt").write_text("other", encoding="utf-8")
    with pytest.raises(BundleError, match=r"vocab\.txt"):
        score_file(bundle, rows, ["text"], "label", None)


def test_a_label_that_the_model_lacks(line: Line, rows: Path) -> None:
    with rows.open("a", encoding="utf-8") as handle:
        handle.write("my parcel\tfurious\n")
    with pytest.raises(DataError) as caught:
        score_file(line.bundle, rows, ["text"], "label", None)
    message = str(caught.value)
    assert f"{rows} cannot be scored" in message
    assert "furious" in message
    assert "line 42" in message


def test_labels_keep_the_models_order(line: Line, tmp_path: Path) -> None:
    """A file with only one label must not renumber it."""
    file = tmp_path / "glad.tsv"
    file.write_text("text\tlabel\nthanks great love it\tglad\nperfect and happy\tglad\n")
    evaluation = score_file(line.bundle, file, ["text"], "label", None)
    assert evaluation.predicted.tolist() == [2, 2]
    assert evaluation.scores["accuracy"].value == 1.0


def test_a_regression_folder(tmp_path: Path) -> None:
    dev = tiny_regression(16, 16).dev
    folder = save_tiny(tiny_bert(("value",)), tmp_path / "model")
    file = write_split(tmp_path / "dev.tsv", dev, None)
    evaluation = score_file(folder, file, ["text", "text_pair"], "label", 24)
    values = open_tiny(folder).logits(dev.inputs())[:, 0]
    assert set(evaluation.scores) == {"pearson", "spearman"}
    assert evaluation.scores["pearson"].value == pytest.approx(
        np.corrcoef(values, dev.targets)[0, 1], abs=1e-6
    )


def test_a_text_longer_than_the_models_limit_is_truncated(line: Line, tmp_path: Path) -> None:
    """The tiny model has 32 positions, fewer than the default of 128 tokens."""
    folder = stage_directory(line.store, "distill") / "model"
    file = tmp_path / "long.tsv"
    file.write_text(f"text\tlabel\n{'parcel ' * 100}\tcalm\nmy lamp\tglad\n", encoding="utf-8")
    assert score_file(folder, file, ["text"], "label", None).rows == 2


def test_a_folder_without_a_model(tmp_path: Path, rows: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FactoryError, match=r"empty: neither a bundle .* nor a model folder"):
        score_file(tmp_path / "empty", rows, ["text"], "label", None)


def test_evaluation_lines(line: Line, rows: Path) -> None:
    evaluation = score_file(line.bundle, rows, ["text"], "label", None)
    head, *lines = evaluation_lines(evaluation)
    assert head == "new: 40 rows"
    score = evaluation.scores["accuracy"]
    assert (
        f"accuracy          {score.value:.4f}  (95 %: {score.low:.4f} to {score.high:.4f})" in lines
    )
