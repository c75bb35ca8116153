"""The whole line: one uninterrupted run, then everything that may happen around it."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from forked_runs import ForkServer, fork_server
from helpers.pipeline_run import ROOT, Line, factory, published, python, stage_directory

from factory.models.source import find_model
from factory.store import load_artifact
from serving.bundle import MANIFEST_NAME, read_manifest
from serving.predictor import Predictor

STAGES = ("data", "teacher", "distill", "baseline", "evaluate", "export", "quantize", "bundle")
# What shows that a stage is in the middle of its work; the others are killed by the clock.
WORK = {
    "teacher": "checkpoints/checkpoint-*/trainer_state.json",
    "distill": "intermediate.checkpoint",
    "baseline": "baseline.checkpoint",
    "evaluate": "*.npy",
    "export": "model.onnx",
    "quantize": "int8-static.onnx",
    "bundle": MANIFEST_NAME,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """Starts runs that share one start-up."""
    with fork_server(tmp_path_factory.mktemp("forked")) as server:
        yield server


# the uninterrupted run


def test_stdout_is_the_bundles_path_and_nothing_else(line: Line) -> None:
    assert line.result.returncode == 0, line.result.stderr
    assert line.result.stdout == f"{line.bundle}\n"
    assert (line.bundle / MANIFEST_NAME).is_file()


def test_stderr_tells_the_stages_and_draws_no_bars(line: Line) -> None:
    told = [text for text in line.result.stderr.splitlines() if text.startswith("[")]
    assert [text.split()[0] for text in told] == [f"[{stage}]" for stage in STAGES]
    assert all(text.split()[1] == "running" for text in told)
    assert not {"\r", "\x1b", "\x08"} & set(line.result.stderr)
    assert "Traceback" not in line.result.stderr
    assert "gate 1  pass" in line.result.stderr
    assert "gate 2  int8-static  pass" in line.result.stderr


def test_nothing_unfinished_is_left(line: Line) -> None:
    assert sorted(name.partition("-")[0] for name in published(line.store)) == sorted(STAGES)
    assert not [path for path in line.store.rglob("*") if ".partial" in path.name]
    assert not [path for path in line.store.rglob("*") if ".tmp" in path.name]


def test_verify_and_inspect_accept_the_bundle(line: Line) -> None:
    verified = factory("verify", line.bundle)
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.startswith(f"{line.bundle}: ")
    inspected = factory("inspect", line.bundle)
    assert inspected.returncode == 0, inspected.stderr
    assert "tiny-line" in inspected.stdout
    assert "3 labels: angry, calm, glad" in inspected.stdout
    assert "pass  min_retention" in inspected.stdout
    as_json = json.loads(factory("inspect", line.bundle, "--json").stdout)
    assert as_json == json.loads((line.bundle / MANIFEST_NAME).read_text(encoding="utf-8"))


def test_the_student_has_learned_and_distillation_helped(line: Line) -> None:
    scores = read_manifest(line.bundle).scores
    for split in ("dev", "test"):
        assert scores["teacher"][split]["accuracy"]["value"] > 0.8
        assert scores["student"][split]["accuracy"]["value"] > 0.8
        assert scores["int8-static"][split]["accuracy"]["value"] > 0.7


PLAIN_TRANSFORMERS = """
import csv, json, sys
sys.modules["factory"] = sys.modules["serving"] = None
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
folder, *files = sys.argv[1:]
model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
answer = {"id2label": model.config.id2label, "predicted": []}
for file in files:
    with open(file, encoding="utf-8") as handle:
        texts = [row["text"] for row in csv.DictReader(handle, delimiter="\\t")]
    predicted = []
    for text in texts:
        batch = tokenizer(text, truncation=True, max_length=24, return_tensors="pt")
        with torch.inference_mode():
            predicted.append(int(model(**batch).logits.argmax()))
    answer["predicted"].append(predicted)
print(json.dumps(answer))
"""


def test_the_student_is_a_plain_model_with_the_stored_predictions(
    line: Line, tmp_path: Path
) -> None:
    """Loaded where our packages cannot be imported, one text at a time."""
    files = [line.recipe.with_name(f"{split}.tsv") for split in ("dev", "test")]
    folder = stage_directory(line.store, "distill") / "model"
    found = json.loads(python(PLAIN_TRANSFORMERS, folder, *files, cwd=tmp_path))
    assert found["id2label"] == {"0": "angry", "1": "calm", "2": "glad"}
    evaluated = stage_directory(line.store, "evaluate")
    for split, predicted in zip(("dev", "test"), found["predicted"], strict=True):
        stored = np.load(evaluated / f"student.{split}.npy")
        assert stored.tolist() == predicted
    assert len(set(found["predicted"][0])) == 3


# run again


def test_the_bundle_can_be_another_students_start(line: Line) -> None:
    """What `run` prints is what `student.start` of the next recipe takes."""
    source = find_model(str(line.bundle), ROOT, "student.start")
    assert Path(source.location) == stage_directory(line.store, "distill") / "model"


def test_a_second_run_has_nothing_to_do_and_loads_no_torch(line: Line) -> None:
    program = (
        "import json, sys\n"
        "from factory.cli.main import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    heavy = {'torch', 'transformers', 'optimum', 'onnxruntime', 'datasets'}\n"
        "    print(end.code or 0, sorted(heavy & set(sys.modules)))\n"
    )
    before = published(line.store)
    answer = python(program, "run", line.recipe, "--store", line.store).splitlines()
    assert answer == [str(line.bundle), "0 []"]
    assert published(line.store) == before
    again = factory("run", line.recipe, "--store", line.store)
    assert "nothing to do" in again.stderr
    assert "[" not in again.stderr.splitlines()[0]


def test_a_raised_threshold_fails_without_training_or_publishing(line: Line) -> None:
    before = published(line.store)
    result = factory("run", line.recipe, "--store", line.store, "--set", "gate.min_retention=1.5")
    assert result.returncode == 3
    assert result.stdout == ""
    assert "error: gate 1 (student in torch) failed, nothing was published" in result.stderr
    assert "FAIL  min_retention: " in result.stderr
    words = [text.split()[:2] for text in result.stderr.splitlines() if text.startswith("[")]
    assert words == [[f"[{stage}]", "cached"] for stage in STAGES[:5]]
    assert published(line.store) == before
    assert not list(line.store.glob("*.partial"))


def plan(line: Line, store: Path, *overrides: str) -> dict[str, tuple[str, str]]:
    """Status and reason of every stage."""
    arguments = [part for override in overrides for part in ("--set", override)]
    result = factory("plan", line.recipe, "--store", store, "--json", *arguments)
    assert result.returncode == 0, result.stderr
    return {row["stage"]: (row["status"], row["reason"]) for row in json.loads(result.stdout)}


def test_plan_tells_what_would_run_and_why(line: Line) -> None:
    cached = ("cached", "nothing changed")
    assert plan(line, line.store) == dict.fromkeys(STAGES, cached)
    changed = plan(line, line.store, "distill.prediction.temperature=2.0")
    why = ("run", "distill.prediction.temperature 1.0 -> 2.0")
    assert changed == {
        "data": cached,
        "teacher": cached,
        "distill": why,
        "baseline": why,
        "evaluate": ("run", "new baseline, distill"),
        "export": ("run", "new distill"),
        "quantize": ("run", "new distill, export"),
        "bundle": ("run", "new baseline, distill, evaluate, export, quantize"),
    }
    lines = factory("plan", line.recipe, "--store", line.store).stdout.splitlines()
    assert [text.split()[1:] for text in lines] == [["cached", "nothing", "changed"]] * 8


# killed


def test_killed_in_every_stage_it_ends_with_the_same_bundle(
    line: Line, server: ForkServer, tmp_path: Path
) -> None:
    store = tmp_path / "runs"
    chance = random.Random(7)
    interrupted = set()
    for stage in STAGES:
        for attempt in ("at once", "at work"):
            run = server.start("run", line.recipe, "--store", store)
            begun = run.wait_until(lambda run=run, stage=stage: f"[{stage}] r" in run.stderr)
            if begun and attempt == "at work":
                pattern = f"{stage}-*.partial/{WORK.get(stage, '*')}"
                run.wait_until(lambda pattern=pattern: any(store.glob(pattern)))
                time.sleep(chance.uniform(0, 0.05))
            run.send(signal.SIGKILL)
            run.finish()
            for directory in published(store):
                load_artifact(store / directory)  # whole, or not there at all
            interrupted |= {path.name.partition("-")[0] for path in store.glob("*.partial")}
    assert {"teacher", "distill"} <= interrupted
    run = server.start("run", line.recipe, "--store", store)
    assert run.finish() == 0, run.stderr
    bundle = stage_directory(store, "bundle")
    assert run.stdout == f"{bundle}\n"
    assert_same_work(line.store, store)
    Predictor.open(bundle)
    assert read_manifest(bundle).version == read_manifest(line.bundle).version
    assert not list(store.glob("*.partial"))


def assert_same_work(expected: Path, found: Path) -> None:
    """Two stores hold the same models to the last bit, and the same predictions."""
    for stage, pattern in (
        ("data", "*.parquet"),
        ("teacher", "model/*.safetensors"),
        ("distill", "model/*.safetensors"),
        ("baseline", "model/*.safetensors"),
        ("evaluate", "*.npy"),
        ("export", "*.onnx"),
        ("quantize", "*.onnx"),
        ("bundle", "onnx/*.onnx"),
    ):
        old, new = stage_directory(expected, stage), stage_directory(found, stage)
        assert old.name == new.name
        files = sorted(old.glob(pattern))
        assert files
        for file in files:
            same = file.read_bytes() == (new / file.relative_to(old)).read_bytes()
            assert same, f"{stage}: {file.name} differs"


def test_a_second_run_on_a_store_in_use_is_refused(
    line: Line, server: ForkServer, tmp_path: Path
) -> None:
    store = tmp_path / "runs"
    first = server.start("run", line.recipe, "--store", store)
    assert first.wait_until(lambda: "[teacher] running" in first.stderr)
    first.send(signal.SIGSTOP)
    second = factory("run", line.recipe, "--store", store)
    assert (second.returncode, second.stdout) == (1, "")
    assert second.stderr == (
        f"error: {store}: another run is using this store; wait for it, "
        "or give this one its own with --store DIRECTORY\n"
    )
    first.send(signal.SIGKILL)
    assert first.finish() == -signal.SIGKILL
    status = plan(line, store)
    assert status["teacher"] == ("resume", "an interrupted run left its work")
    assert status["distill"] == ("run", "never made")


# damaged and full


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_artifact_is_named(line: Line, tmp_path: Path, damage: str) -> None:
    store = line.copy_store(tmp_path)
    file = stage_directory(store, "distill") / "model" / "model.safetensors"
    size = file.stat().st_size
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        file.unlink()
    result = factory("run", line.recipe, "--store", store, "--set", "gate.min_value=0.5")
    assert (result.returncode, result.stdout) == (1, "")
    state = f"{size - 1} bytes, not {size}" if damage == "cut" else "missing"
    error = result.stderr.splitlines()[-1]
    assert error == f"error: {file}: {state}; delete {file.parents[1]} and run again"
    assert "Traceback" not in result.stderr


def test_a_flipped_byte_in_the_bundle_is_found_by_verify(line: Line, tmp_path: Path) -> None:
    bundle = stage_directory(line.copy_store(tmp_path), "bundle")
    file = bundle / read_manifest(bundle).model.file
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    result = factory("verify", bundle)
    assert (result.returncode, result.stdout) == (1, "")
    assert "onnx/model_quantized.onnx has sha256" in result.stderr


@pytest.mark.parametrize(
    ("stage", "largest_file", "reason"),
    [
        ("data", 1000, "File too large"),
        ("teacher", 20_000, "File too large"),  # safetensors writes from Rust
        ("distill", 20_000, "a file could not be written completely"),  # torch.save from C++
        ("export", 20_000, "File too large"),
        ("bundle", 20_000, "File too large"),
    ],
)
def test_a_full_disk_is_told_in_one_line(
    line: Line, server: ForkServer, tmp_path: Path, stage: str, largest_file: int, reason: str
) -> None:
    """A limit on the size of files stands for the disk; a run with room goes on from there."""
    store = line.copy_store(tmp_path, "bundle", stage)
    run = server.start("run", line.recipe, "--store", store, largest_file=largest_file)
    assert run.finish() == 1, run.stderr
    assert run.stdout == ""
    (partial,) = store.glob("*.partial")
    assert run.stderr.splitlines()[-1] == (
        f"error: {partial}: {reason}; make room there and run again, finished work is kept"
    )
    assert partial.name.startswith(f"{stage}-")
    assert "Traceback" not in run.stderr
    if stage in ("teacher", "distill"):  # what is left in the middle of writing must not be used
        again = server.start("run", line.recipe, "--store", store)
        assert again.finish() == 0, again.stderr
        assert_same_work(line.store, store)
