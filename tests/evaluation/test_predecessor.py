"""The gate rule against a predecessor: which stages it changes, and that it can fail."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.minimal_recipe import recipe_tree
from helpers.pipeline_run import Line, line_recipe, published
from helpers.scored_bundle import write_scored_bundle

from factory import pipeline
from factory.bundle import select
from factory.bundle.select import MeasuredForms, measure_forms
from factory.data.dataset import Dataset, Split
from factory.errors import GateFailedError, RecipeError
from factory.evaluation.gate import Measurements, check_rules
from factory.evaluation.predecessor import find_predecessor, score_predecessor
from factory.planning import make_plan
from factory.recipe.file import parse_recipe
from factory.recipe.gate import GateSettings
from factory.store import Store
from serving.bundle import read_manifest
from serving.predictor import Predictor

RULE = {"gate.predecessor": "old", "gate.not_worse_than_predecessor": 0.05}


@pytest.mark.parametrize(("p_value", "passed"), [(0.049, False), (0.05, True), (1.0, True)])
def test_the_rule_fails_below_its_significance(p_value: float, passed: bool) -> None:
    settings = GateSettings(min_value=0.1, predecessor="old", not_worse_than_predecessor=0.05)
    measured = Measurements(value=0.8, teacher=0.9, predecessor=0.85, p_not_worse=p_value)
    result = check_rules(settings, "accuracy", measured)[-1]
    assert (result.rule, result.passed) == ("not_worse_than_predecessor", passed)
    assert result.measured == p_value
    assert "0.8000" in result.text
    assert "0.8500" in result.text
    nothing = replace(measured, predecessor=None, p_not_worse=None)
    rules = [found.rule for found in check_rules(settings, "accuracy", nothing)]
    assert "not_worse_than_predecessor" not in rules


@pytest.mark.parametrize("left_out", sorted(RULE))
def test_the_two_keys_come_together(left_out: str) -> None:
    with pytest.raises(RecipeError, match="belong together"):
        parse_recipe(recipe_tree({key: value for key, value in RULE.items() if key != left_out}))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A recipe's folder with files to hash, and a predecessor."""
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.tsv").write_text(f"text\tlabel\n{name}\ta\n", encoding="utf-8")
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "config.json").write_text("{}", encoding="utf-8")
    write_scored_bundle(tmp_path / "old")
    return tmp_path


def fingerprints(base: Path, changes: Mapping[str, Any]) -> dict[str, str]:
    keys = make_plan(line_recipe(changes), base).keys
    return {stage: key.fingerprint for stage, key in keys.items()}


def test_it_changes_the_bundle_stage_alone(base: Path) -> None:
    plain, first = fingerprints(base, {}), fingerprints(base, RULE)
    assert {stage for stage in plain if plain[stage] != first[stage]} == {"bundle"}
    other = fingerprints(base, {**RULE, "gate.not_worse_than_predecessor": 0.01})
    assert other["bundle"] != first["bundle"]
    shutil.copytree(base / "old", base / "moved")
    moved = {**RULE, "gate.predecessor": "moved"}
    assert fingerprints(base, moved) == first  # the same bundle in another place
    manifest = base / "old" / "manifest.json"
    manifest.write_text(
        manifest.read_text("utf-8").replace("0123456789ab", "ba9876543210"), "utf-8"
    )
    assert fingerprints(base, RULE)["bundle"] != first["bundle"]


def test_a_predecessor_that_is_missing_or_of_another_task(base: Path) -> None:
    with pytest.raises(RecipeError, match=r"gate\.predecessor"):
        make_plan(line_recipe({**RULE, "gate.predecessor": "none"}), base)
    write_scored_bundle(base / "number", task="regression")
    with pytest.raises(RecipeError, match="bundle for regression"):
        make_plan(line_recipe({**RULE, "gate.predecessor": "number"}), base)


def test_the_predecessor_is_scored_on_the_gates_split(base: Path) -> None:
    recipe = line_recipe({**RULE, "gate.split": "test"})
    texts = ["the film was good", "bad film", "very fine", "a not bad film", "was it"]
    predictor = Predictor.open(base / "old")
    right = [int(row.argmax()) for row in predictor.logits(texts)]
    dev = Split("dev", texts, None, [0] * 5)
    # the new data has the labels in another order, and one that the predecessor lacks
    labels = ("positive", "new", "negative", "neutral")
    own = [labels.index(predictor.labels[number]) for number in right]
    test = Split("test", texts, None, own)
    dataset = Dataset("classification", labels, dev, dev, test)
    scores = score_predecessor(find_predecessor(recipe, base), recipe, dataset)
    assert scores is not None
    found = scores.difference(np.array([1] * 5))
    assert (found.old, found.new, found.metric) == (1.0, 0.0, "accuracy")
    assert found.p_not_worse == pytest.approx(1 / 32)
    assert scores.difference(np.array(own)).p_not_worse == 1.0
    assert score_predecessor(None, recipe, dataset) is None


def test_a_real_run_against_its_own_predecessor(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_timings: None
) -> None:
    """Only the bundle is made again; a form with wrong predictions fails the rule."""
    store = line.copy_store(tmp_path)
    before = published(store)
    changes = {
        "distill.baseline": "random",
        "gate.predecessor": str(line.bundle),
        "gate.not_worse_than_predecessor": 0.05,
    }
    recipe = line_recipe(changes)
    wrong_rows = [12]

    def with_errors(*arguments: Any) -> MeasuredForms:
        """The real measurements, with wrong predictions for some rows."""
        forms = measure_forms(*arguments)
        evaluations = {name: dict(splits) for name, splits in forms.evaluations.items()}
        found = evaluations["int8-static"]["dev"]
        predicted = found.predicted.copy()
        predicted[: wrong_rows[0]] = (predicted[: wrong_rows[0]] + 1) % 3
        evaluations["int8-static"]["dev"] = replace(found, predicted=predicted)
        return replace(forms, evaluations=evaluations)

    monkeypatch.setattr(select, "measure_forms", with_errors)
    with pytest.raises(GateFailedError, match="not_worse_than_predecessor") as failed:
        pipeline.run(recipe, line.recipe.parent, Store(store), "cpu", report=False)
    rules = failed.value.verdicts["gate 2 (int8-static)"]
    assert [rule["rule"] for rule in rules if not rule["passed"]] == ["not_worse_than_predecessor"]
    assert published(store) == before
    wrong_rows[0] = 0
    bundle = pipeline.run(recipe, line.recipe.parent, Store(store), "cpu", report=False)
    assert set(published(store)) - set(before) == {bundle.name}
    manifest = read_manifest(bundle)
    assert manifest.gate[-1]["rule"] == "not_worse_than_predecessor"
    assert manifest.gate[-1]["measured"] == 1.0
    facts = manifest.measurements["predecessor"]
    assert facts["version"] == read_manifest(line.bundle).version
    assert facts["candidates"]["int8-static"]["difference"] == 0.0
