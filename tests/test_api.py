"""The Python API on a finished run: the results of the commands, and tables for notebooks."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.pipeline_run import Line

import factory
from serving import Predictor


def test_a_run_again_is_the_bundle(line: Line) -> None:
    bundle = factory.run(line.recipe, store=line.store, device="cpu")
    assert bundle.directory.resolve() == line.bundle.resolve()
    assert Path(bundle) == bundle.directory
    assert bundle.gate
    assert all(row.startswith("pass") for row in bundle.gate)
    shown = repr(bundle)
    assert shown.startswith(f"Bundle(tiny-line {bundle.manifest.version}")
    assert "| teacher (torch) |" in shown
    page = bundle._repr_html_()
    assert page.count("<tr>") == len(shown.splitlines()) - 2  # name, rule; the head is a row
    assert "<td>teacher (torch)</td>" in page


def test_a_recipe_that_is_loaded(line: Line) -> None:
    recipe = factory.load_recipe(line.recipe)
    plan = factory.plan(recipe, base=line.recipe.parent, store=line.store)
    assert {step.status for step in plan.stages} == {"cached"}
    with pytest.raises(ValueError, match="give its path"):
        factory.plan(recipe, ["name=x"])


def test_a_plan_says_why(line: Line) -> None:
    plan = factory.plan(line.recipe, ["distill.seed=43"], store=line.store)
    assert "distill.seed 42 -> 43" in repr(plan)
    assert plan._repr_html_().count("<tr>") == len(plan.stages) + 1


def test_score_verify_and_predict(line: Line) -> None:
    bundle = factory.verify(line.bundle)
    evaluation = factory.score(bundle, line.recipe.parent / "dev.tsv")
    shipped = bundle.manifest.scores[bundle.manifest.model.form]["dev"]["accuracy"]["value"]
    assert evaluation.scores["accuracy"].value == shipped
    answers = bundle.predictor().predict(["thanks"])
    assert answers == Predictor.open(line.bundle).predict(["thanks"])


def test_a_bundle_compared_with_itself(line: Line) -> None:
    comparison = factory.compare(line.bundle, factory.Bundle.open(line.bundle))
    assert comparison.agreement == 1.0
    assert not comparison.recipe_changes


def test_names_are_listed() -> None:
    assert set(factory.__all__) <= set(dir(factory))
    assert len(factory.__all__) == 14
