"""The whole line in this process with augmentation, and the runs that end before the bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from click.testing import CliRunner
from tiny_line import run_here, stage_directory, write_files, write_recipe
from tiny_models import save_tiny, tiny_bert, tiny_dataset, tiny_split

from factory.augment.mlm_model import load_mlm
from factory.augment.stage import read_augmented
from factory.cli.main import main
from factory.data.dataset import Dataset
from factory.models.source import ModelSource
from factory.store import ARTIFACT_FILE, Store, load_artifact, read_json
from serving.predictor import Predictor

# Checkpoints of tiny epochs come within one second of each other.
pytestmark = [
    pytest.mark.filterwarnings("ignore:mtime may not be reliable:UserWarning"),
    pytest.mark.usefixtures("few_timings"),
]

AUGMENTED: Mapping[str, Any] = {
    "augment": {"copies": 3},
    "distill.intermediate.epochs": 1.0,
    "distill.prediction.epochs": 1.0,
    "distill.baseline": "random",
    "gate": {"min_value": 0.0, "max_quantization_drop": 1.0},
}


def small() -> Dataset:
    return replace(tiny_dataset(), test=tiny_split("test", 45, seed=5))


def factory(*arguments: str | Path) -> str:
    """The stdout of a command that must succeed."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_variants_are_learned_on_in_both_phases(tmp_path: Path) -> None:
    dataset = small()
    save_tiny(tiny_bert(), tmp_path / "teacher")
    store = tmp_path / "runs"
    bundle = run_here(tmp_path, dataset, AUGMENTED)
    assert Predictor.open(bundle).labels == dataset.labels

    artifact = load_artifact(stage_directory(store, "augment"))
    variants, source_rows = read_augmented(artifact.directory)
    assert len(variants) == artifact.facts["variants"] > len(dataset.train)
    assert set(source_rows) <= set(range(len(dataset.train)))
    assert not set(variants) & set(dataset.train.texts)
    distilled = load_artifact(stage_directory(store, "distill")).facts
    rows = len(dataset.train) + len(variants)
    assert distilled["rows"] == rows
    steps = -(-rows // 16)
    assert distilled["steps"] == {"intermediate": steps, "prediction": steps}
    # the undistilled student sees no variant and takes as many steps
    assert load_artifact(stage_directory(store, "baseline")).facts["steps"] == 2 * steps


def test_augment_alone_and_its_preview(tmp_path: Path) -> None:
    """From a masked language model trained here; the run that follows uses both."""
    dataset = small()
    write_files(tmp_path, dataset)
    save_tiny(tiny_bert(), tmp_path / "teacher")
    trained = {"augment": {"mlm": "trained", "copies": 2}, "mlm": {"epochs": 1.0}}
    recipe = write_recipe(tmp_path / "recipe.toml", trained)
    store = tmp_path / "runs"

    model = Path(factory("mlm", recipe, "--store", store).strip())
    assert model == stage_directory(store, "mlm") / "model"
    assert load_mlm(ModelSource(str(model), None, "it"), "augment.mlm", "cpu").device == "cpu"
    facts = load_artifact(model.parent).facts
    assert facts["new_head"]

    shown = factory("augment", recipe, "--store", store, "--preview", "4")
    assert len([line for line in shown.splitlines() if line.startswith("row ")]) == 4
    assert "[" in shown
    assert not list(store.glob("augment-*"))

    folder = Path(factory("augment", recipe, "--store", store).strip())
    assert folder == stage_directory(store, "augment")
    rows = sum(pyarrow.parquet.read_table(file).num_rows for file in folder.glob("*.parquet"))
    assert rows == load_artifact(folder).facts["variants"] > 0
    assert not list(store.glob("teacher-*"))  # its embeddings are those before fine-tuning

    planned = json.loads(factory("plan", recipe, "--store", store, "--json"))
    status = {step["stage"]: step["status"] for step in planned}
    assert list(status)[:4] == ["data", "teacher", "mlm", "augment"]
    assert [stage for stage, word in status.items() if word == "cached"] == [
        "data",
        "mlm",
        "augment",
    ]


def test_the_teacher_filters(tmp_path: Path) -> None:
    dataset = small()
    save_tiny(tiny_bert(), tmp_path / "teacher")
    changes = {**AUGMENTED, "augment": {"copies": 3, "filter": "teacher"}}
    run_here(tmp_path, dataset, changes)
    artifact = load_artifact(stage_directory(tmp_path / "runs", "augment"))
    assert "teacher" in read_json(artifact.directory / ARTIFACT_FILE)["inputs"]
    assert artifact.facts["dropped"]["filter"] > 0


@pytest.mark.parametrize("command", ["augment", "mlm"])
def test_errors_say_what_to_do(tmp_path: Path, command: str) -> None:
    write_files(tmp_path, small())
    save_tiny(tiny_bert(), tmp_path / "teacher")
    recipe = write_recipe(tmp_path / "recipe.toml")
    wrong = {
        "augment": ["augment.mlm=teacher", "augment.mlm"],
        "mlm": ["mlm.model=nowhere/at/all", "mlm.model"],
    }[command]
    result = CliRunner().invoke(
        main, [command, str(recipe), "--store", str(tmp_path / "runs"), "--set", wrong[0]]
    )
    assert result.exit_code == 2
    assert wrong[1] in result.stderr
    if command == "augment":
        assert "has no masked-language-model head" in result.stderr
        bare = CliRunner().invoke(main, ["augment", str(recipe), "--store", str(tmp_path / "r")])
        assert bare.exit_code == 2
        assert "no section [augment]" in bare.stderr
        assert Store(tmp_path / "runs").records("augment") == []
