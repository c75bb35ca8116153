"""Event files of real stages, and requested trackers."""

from __future__ import annotations

import csv
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers.minimal_recipe import recipe_tree
from helpers.pipeline_run import Line, factory_here, stage_directory
from tensorboardX.proto.event_pb2 import Event

from factory.errors import MissingDependencyError, TrackingError
from factory.recipe.file import parse_recipe
from factory.runtime import tracking
from factory.stages import distill
from factory.stages.build import build_stage
from factory.stages.sources import Sources
from factory.stages.stage import Run
from factory.store import ArtifactKey, Store, load_artifact, read_json


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar of the event files below a folder, by tag: (step, value)."""
    found: dict[str, list[tuple[int, float]]] = {}
    for file in sorted(folder.rglob("events.*")):
        for event in events(file):
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def events(file: Path) -> Iterator[Event]:
    """TFRecords: length (8 bytes), its checksum (4), the record, its checksum (4)."""
    data, position = file.read_bytes(), 0
    while position < len(data):
        length = int.from_bytes(data[position : position + 8], "little")
        yield Event.FromString(data[position + 12 : position + 12 + length])
        position += 16 + length


def test_every_loss_of_a_real_run_is_in_its_stage(line: Line) -> None:
    """Event files and losses.csv have the same values; the teacher has event files too."""
    stage = stage_directory(line.store, "distill")
    found = scalars(stage / "tensorboard")
    with (stage / "losses.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert {row["phase"] for row in rows} == {"intermediate", "prediction"}
    assert any(row["term"].startswith("hidden.") for row in rows)  # layer by layer
    assert set(found) == {f"{row['phase']}/{row['term']}" for row in rows}
    for row in rows:
        series = dict(found[f"{row['phase']}/{row['term']}"])
        assert series[int(row["step"])] == pytest.approx(float(row["value"]), rel=1e-5)
    teacher = scalars(stage_directory(line.store, "teacher") / "tensorboard")
    assert len(teacher["teacher/total"]) > 10


def test_event_files_are_no_content(line: Line, tmp_path: Path) -> None:
    store = line.copy_store(tmp_path)
    stage = stage_directory(store, "distill")
    assert (stage / "tensorboard").is_dir()
    assert not [name for name in read_json(stage / "artifact.json")["files"] if "events" in name]
    for file in (stage / "tensorboard").rglob("events.*"):
        file.unlink()
    assert load_artifact(stage).directory == stage


class Calls:
    """The calls that the trackers received."""

    def __init__(self) -> None:
        self.made: list[tuple[Any, ...]] = []


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Stand-ins of the modules mlflow and wandb, with the functions we call."""
    calls = Calls()

    class Run:
        def __init__(self, tracker: str) -> None:
            self.tracker = tracker

        def __enter__(self) -> None:
            return

        def __exit__(self, *_: object) -> None:
            calls.made.append((f"{self.tracker} ends",))

    def start_run(run_name: str) -> Run:
        calls.made.append(("mlflow", run_name))
        return Run("mlflow")

    def init(project: str, name: str) -> Run:
        calls.made.append(("wandb", project, name))
        return Run("wandb")

    def log_metrics(values: dict[str, float], step: int) -> None:
        calls.made.append(("mlflow", values, step))

    functions: dict[str, dict[str, Any]] = {
        "mlflow": {"start_run": start_run, "log_metrics": log_metrics},
        "wandb": {
            "init": init,
            "log": lambda values: calls.made.append(("wandb", values)),
        },
    }
    for name, members in functions.items():
        module = ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        for member, function in members.items():
            setattr(module, member, function)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return calls


def one_stage(folder: Path) -> None:
    def make(output: Path, run: Run) -> dict[str, Any]:
        tracking.log("prediction", 42, 10, {"total": 0.5})
        return {}

    recipe = parse_recipe(recipe_tree({"name": "mails"}))
    sources = Sources(None, None, None, None, None, None, None)
    run = Run(recipe, folder, sources, "cpu", {"distill": ArtifactKey("distill", 1, {}, {})})
    build_stage(Store(folder), replace(distill.STAGE, make=make), run)


def test_installed_trackers_receive_nothing_unless_requested(
    installed: Calls, tmp_path: Path
) -> None:
    one_stage(tmp_path)
    assert installed.made == []
    assert scalars(tmp_path) == {"prediction/total": [(10, 0.5)]}


def test_requested_trackers_get_one_run_per_stage(installed: Calls, tmp_path: Path) -> None:
    with tracking.trackers(["mlflow", "wandb"]):
        one_stage(tmp_path)
    named = {"prediction/seed-42/total": 0.5}
    assert installed.made == [
        ("mlflow", "mails distill"),
        ("wandb", "tinybert-factory", "mails distill"),
        ("mlflow", named, 10),
        ("wandb", {**named, "prediction/seed-42/step": 10}),
        ("wandb ends",),
        ("mlflow ends",),
    ]
    installed.made.clear()
    one_stage(tmp_path / "later")
    assert installed.made == []


def test_a_stage_that_fails_ends_its_runs(installed: Calls, tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        tracking.trackers(["mlflow", "wandb"]),
        tracking.stage(tmp_path, "distill", "mails"),
    ):
        raise ZeroDivisionError
    assert installed.made[-2:] == [("wandb ends",), ("mlflow ends",)]


def test_a_tracker_that_does_not_start_stops_the_stage(
    installed: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: str) -> None:
        raise PermissionError("no key\nand more")

    monkeypatch.setattr(sys.modules["wandb"], "init", refuse)
    with (
        pytest.raises(TrackingError, match=r"wandb does not start: no key; .* without --track"),
        tracking.trackers(["mlflow", "wandb"]),
    ):
        one_stage(tmp_path)
    assert installed.made[-1] == ("mlflow ends",)
    tracking.log("prediction", 42, 10, {"total": 0.5})  # outside a stage
    assert installed.made[-1] == ("mlflow ends",)


def test_a_tracker_that_fails_does_not_end_the_training(
    installed: Calls,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def break_off(*_: Any, **__: Any) -> None:
        raise ConnectionError("unplugged")

    monkeypatch.setattr(sys.modules["mlflow"], "log_metrics", break_off)
    with tracking.trackers(["mlflow", "wandb"]), tracking.stage(tmp_path, "distill", "mails"):
        tracking.log("prediction", 1, 0, {"total": 1.0})
        tracking.log("prediction", 1, 1, {"total": 0.5})
    assert capsys.readouterr().err.count("mlflow failed (unplugged)") == 1
    sent = [call for call in installed.made if call[0] == "wandb" and isinstance(call[1], dict)]
    assert len(sent) == 2
    assert scalars(tmp_path) == {"prediction/total": [(0, 1.0), (1, 0.5)]}


def test_other_processes_write_nothing(
    installed: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    with tracking.trackers(["mlflow"]), tracking.stage(tmp_path, "teacher", "mails"):
        tracking.log("prediction", 42, 10, {"total": 0.5})
    assert installed.made == []
    assert list(tmp_path.iterdir()) == []


def test_without_tensorboardx_trackers_still_get_the_losses(
    installed: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorboardX" else found(name)
    )
    with tracking.trackers(["mlflow"]):
        one_stage(tmp_path)
    assert ("mlflow", {"prediction/seed-42/total": 0.5}, 10) in installed.made
    assert scalars(tmp_path) == {}


def test_a_tracker_that_is_not_installed_stops_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "wandb" else found(name)
    )
    missing = pytest.raises(MissingDependencyError, match="pip install wandb")
    with missing, tracking.trackers(["wandb"]):
        raise AssertionError("the work began")
    assert factory_here("run", "none.toml", "--track", "comet").exit_code == 2
