"""A stage reads the artifacts that it declares as inputs, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.pipeline_run import Line

from factory.planning import make_plan
from factory.recipe.file import load_recipe
from factory.stages.stage import Run
from factory.store import Store


@pytest.mark.parametrize("name", ["evaluate", "export", "quantize", "bundle"])
def test_a_stage_reads_only_its_inputs(line: Line, tmp_path: Path, name: str) -> None:
    plan, store = make_plan(load_recipe(line.recipe), line.recipe.parent), Store(line.store)
    (stage,) = (stage for stage in plan.stages if stage.name == name)
    inputs = {made: store.load(plan.keys[made]) for made in plan.keys[name].inputs}
    run = Run(plan.recipe, plan.base_directory, plan.sources, "cpu", plan.keys, inputs)
    assert stage.make(tmp_path, run).keys() == store.load(plan.keys[name]).facts.keys()
