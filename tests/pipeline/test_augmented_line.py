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
from helpers.pipeline_run import run_here, stage_directory, write_files, write_recipe
from helpers.tiny_models import save_tiny, tiny_bert, tiny_dataset, tiny_split
from transformers import BertForMaskedLM

from factory.augment.shards import read_augmented
from factory.cli.main import main
from factory.data.dataset import Dataset
from factory.store import Store, load_artifact
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
    assert len(variants) == artifact.facts["examples"] > len(dataset.train)
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
    write_files(tmp_path, small())
    save_tiny(tiny_bert(), tmp_path / "teacher")
    save_tiny(BertForMaskedLM(tiny_bert().config), tmp_path / "mlm")
    recipe = write_recipe(tmp_path / "recipe.toml", {"augment": {"mlm": "mlm", "copies": 2}})
    store = tmp_path / "runs"

    shown = factory("augment", recipe, "--store", store, "--preview", "4")
    assert len([line for line in shown.splitlines() if line.startswith("row ")]) == 4
    assert "[" in shown
    assert not list(store.glob("augment-*"))

    folder = Path(factory("augment", recipe, "--store", store).strip())
    assert folder == stage_directory(store, "augment")
    rows = sum(pyarrow.parquet.read_table(file).num_rows for file in folder.glob("*.parquet"))
    assert rows == load_artifact(folder).facts["examples"] > 0

    planned = json.loads(factory("plan", recipe, "--store", store, "--json"))
    cached = [step["stage"] for step in planned if step["status"] == "cached"]
    assert cached == ["data", "augment"]  # its embeddings are those before fine-tuning


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    write_files(tmp_path, small())
    save_tiny(tiny_bert(), tmp_path / "teacher")
    recipe = write_recipe(tmp_path / "recipe.toml")
    store = tmp_path / "runs"
    command = ["augment", str(recipe), "--store", str(store)]
    headless = CliRunner().invoke(main, [*command, "--set", "augment.mlm=teacher"])
    assert headless.exit_code == 2
    assert "augment.mlm" in headless.stderr
    assert "has no masked-language-model head" in headless.stderr
    assert Store(store).records("augment") == []
    bare = CliRunner().invoke(main, command)
    assert bare.exit_code == 2
    assert "no section [augment]" in bare.stderr
