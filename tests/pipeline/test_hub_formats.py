"""Runs on data and checkpoints in the hub's formats, and from one student to the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.fake_hub_files import CLASSES, Rows, write_glue
from helpers.pipeline_run import line_recipe
from helpers.reference_checkpoint import reference_state, write_reference
from helpers.tiny_models import LABELS, open_tiny, save_tiny, tiny_bert, tiny_split, train_plainly

from factory import pipeline
from factory.data.dataset import Split
from factory.store import Store
from serving.bundle import read_manifest

pytestmark = pytest.mark.usefixtures("few_timings")

# tiny_split's classes angry, calm, glad by what MNLI calls its own
MEANING = dict(zip(LABELS, CLASSES["mnli"], strict=True))


def pairs(name: str, rows: int, seed: int) -> Split:
    split = tiny_split(name, rows, seed)
    return Split(name, split.texts, [f"my lamp {n % 7}" for n in range(rows)], split.targets)


def rows_of(split: Split, two: bool) -> Rows:
    """MNLI's rows; with two classes RTE's: entailment or not."""
    assert split.text_pairs is not None
    targets = [min(int(target), 1) if two else target for target in split.targets]
    return list(zip(split.texts, split.text_pairs, targets, strict=True))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with GLUE's mnli and rte, a general student, and a teacher of MNLI."""
    mnli = {
        "train": rows_of(pairs("train", 210, 11), two=False),
        "validation_matched": rows_of(pairs("dev", 90, 12), two=False),
        "validation_mismatched": rows_of(pairs("test", 60, 13), two=False),
    }
    rte = {
        "train": rows_of(pairs("train", 120, 14), two=True),
        "validation": rows_of(pairs("dev", 60, 15), two=True),
    }
    write_glue(tmp_path / "glue", {"mnli": mnli, "rte": rte})
    write_reference(tmp_path / "general", reference_state())
    # outputs in the order of LABELS reversed: contradiction, neutral, entailment
    backwards = tuple(MEANING[label] for label in reversed(LABELS))
    model = tiny_bert(backwards)
    split = pairs("train", 210, 11)
    targets = [2 - int(target) for target in split.targets]
    train_plainly(model, Split("train", split.texts, split.text_pairs, targets), epochs=12)
    save_tiny(model, tmp_path / "teacher")
    return tmp_path


def run(
    base: Path, config: str, columns: list[str], changes: dict[str, Any], until: str = "bundle"
) -> Path:
    data = {"hub": "glue", "config": config, "text": columns, "max_length": 24}
    tree = {
        "data": {**data, "allow_duplicates": True, **changes.pop("data", {})},
        "student.hidden": 16,
        "distill.prediction.epochs": 20.0,  # enough to be better than chance
        "quantize.forms": ["fp32"],
        "gate": {"min_value": 0.0},
        **changes,
    }
    store = Store(base / "runs")
    return pipeline.run(line_recipe(tree), base, store, "cpu", until, report=False)


def test_from_the_general_student_to_mnli_to_rte(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = {"dev_split": "validation_matched", "test_split": "validation_mismatched"}
    changes = {
        "name": "mnli",
        "data": splits,
        "teacher": {"model": "teacher", "fine_tune": False},
        # "general" alone is a start of its own
        "student.start": "./general",
    }
    first = run(base, "mnli", ["premise", "hypothesis"], changes)
    told = capsys.readouterr().err
    assert "trained width projections loaded, all 3" in told
    manifest = read_manifest(first)
    assert manifest.labels == ["entailment", "neutral", "contradiction"]
    # read in its own order instead of by name, the teacher would be below a third
    assert manifest.scores["teacher"]["dev"]["accuracy"]["value"] > 0.8
    assert set(manifest.scores["teacher"]) == {"dev", "test"}

    changes = {
        "name": "rte",
        "student.start": str(first.relative_to(base)),
        "distill.prediction.epochs": 1.0,
    }
    second = run(base, "rte", ["sentence1", "sentence2"], changes, "distill")
    told = capsys.readouterr().err
    assert (
        "new classifier, the checkpoint's labels are 'entailment', 'neutral', 'contradiction'"
        in told
    )
    assert "new width projections: the checkpoint holds none" in told
    labels = open_tiny(second / "model").model.config.id2label
    assert labels == {0: "entailment", 1: "not_entailment"}
