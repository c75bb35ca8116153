"""benchmarks/glue.py on tiny local files: what it runs, survives, measures and prints."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers.pipeline_run import ROOT, clean_environment, write_split
from helpers.tiny_models import save_tiny, tiny_bert, tiny_split

from factory.data.dataset import Split
from factory.data.load import load_dataset
from factory.recipe.data import DataSettings

SMALL_RUN = (
    "gate.metric=accuracy",
    "gate.min_retention=5.0",
    "data.max_length=24",
    "teacher.epochs=8.0",
    "teacher.batch_size=16",
    "teacher.learning_rate=5e-3",
    "student.start=teacher",
    "student.layers=2",
    "student.hidden=24",
    "student.heads=4",
    "student.intermediate=32",
    "distill.batch_size=16",
    "distill.intermediate.epochs=3.0",
    "distill.prediction.epochs=3.0",
)


def two_classes(name: str, rows: int, seed: int, pairs: bool) -> Split:
    """Angry or glad, by a word; the second text of a pair says nothing."""
    split = tiny_split(name, rows, seed)
    chosen = [row for row, target in enumerate(split.targets) if target != 1]
    texts = [split.texts[row] for row in chosen]
    second = ["the parcel was late"] * len(texts) if pairs else None
    return Split(name, texts, second, [int(split.targets[row] == 2) for row in chosen])


@pytest.fixture
def real_data(tmp_path: Path) -> Path:
    """Files as they are kept for benchmarks; sst2 has a row without a text."""
    folder = tmp_path / "real"
    for task, labels, pairs in (
        ("sst2", ("negative", "positive"), False),
        ("mrpc", ("different", "paraphrase"), True),
    ):
        (folder / task).mkdir(parents=True)
        (folder / task / "labels.txt").write_text("\n".join(labels) + "\n")
        for name, rows, seed in (("train", 150, 1), ("dev", 60, 2)):
            split = two_classes(name, rows, seed, pairs)
            write_split(folder / task / f"{name}.tsv", split, labels)
    with (folder / "sst2" / "train.tsv").open("a") as handle:
        handle.write("\tpositive\n")
    return folder


@pytest.fixture
def glue(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return _module("glue")


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_failed_task_and_a_failed_gate_stop_nothing(tmp_path: Path, real_data: Path) -> None:
    teacher = save_tiny(tiny_bert(("LABEL_0", "LABEL_1")), tmp_path / "teacher")
    output = tmp_path / "glue.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "glue.py"), "--tasks", "sst2", "mrpc"]
    command += ["--store", "runs", "--teacher", str(teacher), "--output", str(output)]
    for setting in SMALL_RUN:
        command += ["--set", setting]
    environment = {**clean_environment(), "FACTORY_REAL_DATA": str(real_data)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(output.read_text())["ours"]
    assert results["sst2"]["outcome"] == "error, exit code 1"
    assert "scores" not in results["sst2"]
    assert results["mrpc"]["outcome"] == "gate failed"
    assert results["mrpc"]["data"] == "local folder"
    assert str(tmp_path) not in output.read_text()
    scores = results["mrpc"]["scores"]
    assert scores["student"]["dev"]["rows"] == 40
    rows = {line.split(" | ")[0]: line for line in done.stdout.splitlines() if "|" in line}
    (row,) = (line for label, line in rows.items() if "our student" in label)
    value = f"{100 * scores['student']['dev']['value']:.1f}"
    assert [cell.strip() for cell in row.split("|")[2:-1]] == ["-"] * 7 + [value, "-", "-"]
    assert "- sst2, ours: error, exit code 1; nothing was measured" in done.stdout
    # scored by the table's metric, or else that is said
    stands_in = "Not the table's metric: mrpc of ours is" in done.stdout
    assert stands_in == (results["mrpc"]["metric"] != "f1")
    assert "- mrpc, ours: gate failed, teacher teacher, data from the local folder" in done.stdout


@pytest.mark.parametrize(
    ("task", "text"), [("sst2", "sentence"), ("mrpc", ["sentence1", "sentence2"])]
)
def test_local_files_read_as_the_hubs(
    glue: ModuleType, real_data: Path, tmp_path: Path, task: str, text: Any
) -> None:
    write: Callable[..., Path] = glue.write_glue_folder
    folder = write(real_data / task, task, tmp_path / "glue")
    settings = DataSettings(
        hub=str(folder), config=task, text=text, allow_duplicates=True, allow_empty=True
    )
    notices: list[str] = []
    dataset, _ = load_dataset(settings, tmp_path, tmp_path / "cache", notices.append)
    expected = two_classes("dev", 60, 2, pairs=task == "mrpc")
    assert dataset.dev.texts == expected.texts
    assert dataset.dev.text_pairs == expected.text_pairs
    assert dataset.dev.targets == expected.targets
    assert dataset.labels == glue.LOCAL_TASKS[task][1]


def test_the_mean_needs_every_column(glue: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    glue.print_table({})
    cited = [line for line in capsys.readouterr().out.splitlines() if "TinyBERT4" in line]
    assert cited[0].endswith("| 77.0 |")  # the paper's own average
    all_but_one = dict.fromkeys(list(glue.COLUMNS)[:-1], 50.0)
    glue.print_row("x", all_but_one)
    assert capsys.readouterr().out.endswith("| - | - |\n")


def test_matched_and_mismatched_are_two_splits_of_one_run(glue: ModuleType) -> None:
    scores = {"student": {"dev": {"value": 0.5}, "test": {"value": 0.25}}}
    assert glue.column_values({"mnli": {"scores": scores}}, "student") == {
        "MNLI-m": 50.0,
        "MNLI-mm": 25.0,
    }
    assert glue.column_values({"mnli": {"outcome": "error, exit code 1"}}, "student") == {}


def test_a_run_without_figures_does_not_replace_one_with(glue: ModuleType) -> None:
    tasks: dict[str, Any] = {"rte": {"scores": {"student": {}}}}
    glue.keep(tasks, "rte", {"outcome": "error, exit code 1"})
    assert "scores" in tasks["rte"]
    glue.keep(tasks, "cola", {"outcome": "error, exit code 1"})
    assert tasks["cola"] == {"outcome": "error, exit code 1"}
