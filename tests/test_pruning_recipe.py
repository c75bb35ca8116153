"""The recipe's section [prune]: what it refuses, and which stages it adds and remakes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny_line import line_recipe

from factory import graph as graph_module
from factory.errors import RecipeError
from factory.graph import Graph, make_graph

BEHIND = ["evaluate", "export", "quantize", "bundle"]
PRUNED = {"prune.neurons": 8}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A recipe's folder with files to hash; nothing here is ever loaded."""
    (tmp_path / "more.txt").write_text("more\n", encoding="utf-8")
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.tsv").write_text(f"text\tlabel\n{name}\ta\n", encoding="utf-8")
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "config.json").write_text("{}", encoding="utf-8")
    return tmp_path


def graph_of(base: Path, changes: Mapping[str, Any] | None = None) -> Graph:
    return make_graph(line_recipe(changes), base)


def changed(old: Graph, new: Graph) -> list[str]:
    before = {step.stage: step.fingerprint for step in old.steps()}
    return [step.stage for step in new.steps() if before.get(step.stage) != step.fingerprint]


@pytest.mark.parametrize("neurons", [32, 33, 1200])
def test_more_neurons_than_there_are_name_the_students_own(neurons: int) -> None:
    with pytest.raises(RecipeError) as caught:
        line_recipe({"prune.neurons": neurons})
    (problem,) = caught.value.problems
    assert problem.startswith(f"prune: neurons {neurons} removes nothing from the student's 32")
    assert "student.intermediate" in problem
    assert line_recipe({"prune.neurons": 31}).prune is not None
    with pytest.raises(RecipeError, match="the student's 1200"):  # the default
        line_recipe({"student": {}, "prune.neurons": 1200})


def test_a_student_with_problems_of_its_own_is_told_alone() -> None:
    with pytest.raises(RecipeError) as caught:
        line_recipe({"student.heads": 5, "prune.neurons": 1000})
    assert len(caught.value.problems) == 1
    assert "heads" in caught.value.problems[0]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"prune": {}}, "prune.neurons: required"),
        ({"prune.neurons": 0}, "prune.neurons"),
        ({"prune": {"neurons": 8, "epochs": -1.0}}, "prune.epochs"),
        ({"prune": {"neurons": 8, "learning_rate": 0.0}}, "prune.learning_rate"),
        ({"prune": {"neurons": 8, "calibration_rows": 0}}, "prune.calibration_rows"),
        ({"prune": {"neurons": 8, "neuron": 4}}, "prune.neuron: unknown key; did you mean"),
        ({"prune": {"neurons": 8, "heads": 4}}, "prune.heads: unknown key"),
    ],
)
def test_other_mistakes(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError) as caught:
        line_recipe(changes)
    assert any(line.startswith(problem) for line in caught.value.problems)


def test_the_stage_stands_between_the_student_and_all_that_follows(base: Path) -> None:
    plain, pruned = graph_of(base), graph_of(base, PRUNED)
    assert plain.prune is None
    assert pruned.prune is not None
    assert [step.stage for step in pruned.steps()] == [
        "data",
        "teacher",
        "distill",
        "prune",
        *BEHIND,
    ]
    assert changed(plain, pruned) == ["prune", *BEHIND]
    assert pruned.prune.inputs["distilled"] == pruned.distill.fingerprint
    models = pruned.evaluate.inputs
    assert models["student"] == pruned.prune.fingerprint
    assert models["unpruned"] == pruned.distill.fingerprint
    assert pruned.shipping.export.inputs["student"] == pruned.prune.fingerprint
    trimmed = graph_of(base, {**PRUNED, "export.general_pieces": 5}).shipping.trim
    assert trimmed is not None
    assert trimmed.inputs["student"] == pruned.prune.fingerprint


def test_what_remakes_it(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = graph_of(base, PRUNED)
    for changes in (
        {"prune.neurons": 9},
        {"prune.epochs": 2.0},
        {"prune.learning_rate": 1e-3},
        {"prune.calibration_rows": 9},
    ):
        assert changed(before, graph_of(base, {**PRUNED, **changes})) == ["prune", *BEHIND]
    taught = {**PRUNED, "distill.prediction.temperature": 2.0}
    assert changed(before, graph_of(base, taught)) == ["distill", "prune", *BEHIND]
    with_text = graph_of(base, {**PRUNED, "data.unlabelled": "more.txt"})
    assert with_text.prune is not None
    assert with_text.unlabelled is not None
    assert with_text.prune.inputs["unlabelled"] == with_text.unlabelled.fingerprint
    assert changed(before, graph_of(base, {**PRUNED, "gate.min_value": 0.1})) == ["bundle"]
    monkeypatch.setattr(graph_module, "PRUNE_VERSION", graph_module.PRUNE_VERSION + 1)
    assert changed(before, graph_of(base, PRUNED)) == ["prune", *BEHIND]


def test_the_baseline_is_the_unpruned_students(base: Path) -> None:
    """It is what the same steps without a teacher give; pruning does not train it again."""
    baseline = {"distill.baseline": "random"}
    plain, pruned = graph_of(base, baseline), graph_of(base, {**baseline, **PRUNED})
    assert plain.baseline == pruned.baseline
