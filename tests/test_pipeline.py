"""The pipeline's decisions, with stages that record that they ran and write hand-made facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.pipeline_run import line_recipe

from factory import pipeline
from factory.data.dataset import Dataset, Split, write_dataset
from factory.errors import (
    DataError,
    GateFailedError,
    RecipeError,
    StoreError,
    TeacherError,
    TrainingError,
)
from factory.evaluation.metrics import LabelScore, Score
from factory.evaluation.results import Evaluation
from factory.planning import make_plan
from factory.stages import STAGES
from factory.stages.stage import Run, Stage
from factory.store import Store


def facts_of(right: int) -> dict[str, Any]:
    """What the evaluate stage records of one model on dev, `right` of 20 rows of each label."""
    share = right / 20
    evaluation = Evaluation(
        split="dev",
        rows=40,
        scores={"accuracy": Score(share, 0.0, 1.0)},
        per_class={label: LabelScore(share, share, share, 20) for label in ("a", "b")},
        confusion=[[right, 20 - right], [20 - right, right]],
    )
    return {"dev": evaluation.to_facts()}


class StandIns:
    """Stages that record that they ran; fingerprints, order and checks are the real ones."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.failing: dict[str, Exception] = {}
        self.devices: list[str] = []
        self.teacher_right = 19
        self.student_right = 18

    def stages(self) -> list[Stage]:
        """A stand-in for every stage."""
        return [self._stand_in(stage) for stage in STAGES]

    def _stand_in(self, stage: Stage) -> Stage:
        def make(output: Path, run: Run) -> dict[str, Any]:
            self.ran.append(stage.name)
            if stage.name in self.failing:
                raise self.failing[stage.name]
            self.devices.append(run.device)
            if stage.name == "data":
                write_dataset(DATASET, output)
            if stage.name == "evaluate":
                rights = {"teacher": 19, "student": self.student_right, "baseline": 10}
                return {model: facts_of(rights[model]) for model in run.models}
            if stage.name == "teacher":
                return {**facts_of(self.teacher_right), "fine_tuned_here": True}
            return {}

        return replace(stage, make=make)


SPLIT = Split("train", ["x"] * 40, None, [0, 1] * 20)
DATASET = Dataset("classification", ("a", "b"), SPLIT, replace(SPLIT, name="dev"), None)


@pytest.fixture
def stages(tmp_path: Path) -> StandIns:
    """Every stage replaced, in a folder with files to hash."""
    for name in ("train.tsv", "dev.tsv", "test.tsv"):
        (tmp_path / name).write_text(f"text\tlabel\n{name}\ta\n", encoding="utf-8")
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "config.json").write_text("{}", encoding="utf-8")
    return StandIns()


def run(
    stages: StandIns, base: Path, changes: Mapping[str, Any] | None = None, device: str = "cpu"
) -> Path:
    recipe, store = line_recipe(changes), Store(base / "runs")
    return pipeline.run(recipe, base, store, device, stages=stages.stages(), report=False)


WITHOUT_BASELINE = ["data", "teacher", "distill", "evaluate", "export", "quantize", "bundle"]


def test_every_stage_runs_once_in_order(stages: StandIns, tmp_path: Path) -> None:
    bundle = run(stages, tmp_path)
    assert stages.ran == WITHOUT_BASELINE
    key = make_plan(line_recipe(), tmp_path).last
    assert bundle == Store(tmp_path / "runs").directory(key)
    assert (bundle / "artifact.json").is_file()


def test_the_baseline_is_made_and_quantize_skipped_as_the_recipe_says(
    stages: StandIns, tmp_path: Path
) -> None:
    run(stages, tmp_path, {"distill.baseline": "same", "quantize.forms": ["fp32"]})
    assert stages.ran == [
        "data", "teacher", "distill", "baseline", "evaluate", "export", "bundle"
    ]  # fmt: skip


def test_nothing_to_do(
    stages: StandIns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(stages, tmp_path)
    stages.ran.clear()
    capsys.readouterr()
    assert run(stages, tmp_path) == first
    assert stages.ran == []
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.strip().startswith("nothing to do")


def test_an_interrupted_stage_is_resumed_and_nothing_before_it(
    stages: StandIns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages.failing["distill"] = KeyError("power cut")
    with pytest.raises(KeyError):
        run(stages, tmp_path)
    assert stages.ran == ["data", "teacher", "distill"]
    stages.failing.clear()
    stages.ran.clear()
    capsys.readouterr()
    run(stages, tmp_path)
    assert stages.ran == WITHOUT_BASELINE[2:]
    lines = [line.split()[:2] for line in capsys.readouterr().err.splitlines() if line[0] == "["]
    assert lines[:4] == [
        ["[data]", "cached"],
        ["[teacher]", "cached"],
        ["[distill]", "resuming"],
        ["[evaluate]", "running"],
    ]


def test_gate_1_stops_before_the_export(stages: StandIns, tmp_path: Path) -> None:
    stages.student_right = 15
    with pytest.raises(GateFailedError, match="gate 1") as caught:
        run(stages, tmp_path, {"gate.min_value": 0.8})
    assert caught.value.exit_code == 3
    assert stages.ran == ["data", "teacher", "distill", "evaluate"]
    assert not list((tmp_path / "runs").glob("bundle-*"))


def test_a_changed_threshold_remakes_only_the_bundle(stages: StandIns, tmp_path: Path) -> None:
    first = run(stages, tmp_path, {"gate.min_value": 0.7})
    stages.ran.clear()
    second = run(stages, tmp_path, {"gate.min_value": 0.8})
    assert stages.ran == ["bundle"]
    assert second != first
    stages.ran.clear()
    with pytest.raises(GateFailedError, match=r"accuracy 0\.9000, required >= 0\.91"):
        run(stages, tmp_path, {"gate.min_value": 0.91})
    assert stages.ran == []


def test_a_failed_second_gate_leaves_nothing_that_looks_like_a_bundle(
    stages: StandIns, tmp_path: Path
) -> None:
    stages.failing["bundle"] = GateFailedError("gate 2", ["too bad"])
    with pytest.raises(GateFailedError):
        run(stages, tmp_path)
    assert not list((tmp_path / "runs").glob("bundle-*"))
    stages.ran.clear()
    with pytest.raises(GateFailedError):
        run(stages, tmp_path)
    assert stages.ran == ["bundle"]


def test_a_teacher_at_chance_level_stops_the_run_also_from_the_store(
    stages: StandIns, tmp_path: Path
) -> None:
    stages.teacher_right = 10
    for ran in (["data", "teacher"], []):
        with pytest.raises(TeacherError, match="the teacher"):
            run(stages, tmp_path)
        assert stages.ran == ran
        stages.ran.clear()


def test_a_student_at_chance_level_stops_the_run_before_gate_1(
    stages: StandIns, tmp_path: Path
) -> None:
    stages.student_right = 10
    with pytest.raises(TrainingError, match="the student"):
        run(stages, tmp_path, {"gate.min_value": 0.99})
    assert stages.ran == ["data", "teacher", "distill", "evaluate"]


def test_a_gate_about_labels_the_data_lacks_is_refused_before_any_training(
    stages: StandIns, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="'spam' is not one of the labels 'a', 'b'"):
        run(stages, tmp_path, {"gate.metric": "f1", "gate.positive_label": "spam"})
    assert stages.ran == ["data"]


@pytest.mark.parametrize(
    ("changes", "largest"),
    [
        ({"distill.batch_size": 41}, 41),
        ({"teacher.batch_size": 64}, 64),
        ({"distill.batch_size": 41, "teacher.fine_tune": False}, 41),
    ],
)
def test_fewer_rows_than_a_batch_are_refused_before_any_training(
    stages: StandIns, tmp_path: Path, changes: dict[str, Any], largest: int
) -> None:
    with pytest.raises(DataError, match=rf"40 rows do not fill one batch of {largest}"):
        run(stages, tmp_path, changes)
    assert stages.ran == ["data"]


def test_the_batch_size_of_an_adopted_teacher_does_not_count(
    stages: StandIns, tmp_path: Path
) -> None:
    run(stages, tmp_path, {"teacher.fine_tune": False, "teacher.batch_size": 64})
    assert stages.ran == WITHOUT_BASELINE


def test_the_device_reaches_the_stages_and_not_the_fingerprints(
    stages: StandIns, tmp_path: Path
) -> None:
    run(stages, tmp_path, device="cuda")
    assert set(stages.devices) == {"cuda"}
    stages.ran.clear()
    run(stages, tmp_path, device="cpu")
    assert stages.ran == []


def test_a_store_in_use_is_refused_before_anything_is_made(
    stages: StandIns, tmp_path: Path
) -> None:
    with Store(tmp_path / "runs").locked(), pytest.raises(StoreError, match="another run"):
        run(stages, tmp_path)
    assert stages.ran == []


def test_a_library_that_finds_no_room_becomes_a_store_error(
    stages: StandIns, tmp_path: Path
) -> None:
    wrapped = RuntimeError("Error while serializing: I/O error: No space left (os error 28)")
    stages.failing["teacher"] = wrapped
    with pytest.raises(StoreError, match=r"teacher-\w+\.partial: No space left on device; free"):
        run(stages, tmp_path)


def test_another_error_of_a_library_is_passed_on_as_it_is(stages: StandIns, tmp_path: Path) -> None:
    stages.failing["teacher"] = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        run(stages, tmp_path)
