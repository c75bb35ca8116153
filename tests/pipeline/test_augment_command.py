"""`factory augment`: its preview, its artifact, and its errors."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet
import pytest
from helpers.pipeline_run import (
    error_of,
    factory_here,
    published,
    stage_directory,
    write_files,
    write_recipe,
)
from helpers.tiny_models import save_tiny, tiny_bert, tiny_dataset
from transformers import BertForMaskedLM

from factory.store import load_artifact


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with data and a teacher."""
    write_files(tmp_path, tiny_dataset())
    save_tiny(tiny_bert(), tmp_path / "teacher")
    return tmp_path


def test_preview_and_artifact(base: Path) -> None:
    save_tiny(BertForMaskedLM(tiny_bert().config), base / "mlm")
    changes = {"data.test": ..., "augment": {"mlm": "mlm", "copies": 2}}
    recipe = write_recipe(base / "recipe.toml", changes)
    store = base / "runs"

    shown = factory_here("augment", recipe, "--store", store, "--preview", "4").stdout
    assert len([line for line in shown.splitlines() if line.startswith("row ")]) == 4
    assert "[" in shown
    assert not list(store.glob("augment-*"))

    folder = Path(factory_here("augment", recipe, "--store", store).stdout.strip())
    assert folder == stage_directory(store, "augment")
    rows = sum(pyarrow.parquet.read_table(file).num_rows for file in folder.glob("*.parquet"))
    assert rows == load_artifact(folder).facts["examples"] > 0

    planned = json.loads(factory_here("plan", recipe, "--store", store, "--json").stdout)
    cached = [stage["stage"] for stage in planned if stage["status"] == "cached"]
    assert cached == ["data", "augment"]  # it uses the embeddings before fine-tuning


def test_errors(base: Path) -> None:
    recipe = write_recipe(base / "recipe.toml", {"data.test": ...})
    command = ["augment", recipe, "--store", base / "runs"]
    message = error_of(factory_here(*command, "--set", "augment.mlm=teacher"), 2)
    assert "augment.mlm" in message
    assert "has no masked-language-model head" in message
    assert "no section [augment]" in error_of(factory_here(*command), 2)
    assert published(base / "runs").keys() == {stage_directory(base / "runs", "data").name}
