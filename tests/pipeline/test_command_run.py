"""One uninterrupted run of the command line, and the same run cached, killed, damaged and full."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.forked import Forks
from helpers.pipeline_run import (
    ROOT,
    Line,
    error_of,
    factory_here,
    published,
    python,
    stage_directory,
)

from factory.models.source import find_model
from factory.store import load_artifact
from serving.bundle import MANIFEST_NAME, read_manifest
from serving.predictor import Predictor

STAGES = ("data", "teacher", "distill", "baseline", "evaluate", "export", "quantize", "bundle")
# A file that shows that a stage is in the middle of its work.
WORK = {
    "teacher": "teacher.checkpoint",
    "distill": "intermediate.checkpoint",
    "baseline": "baseline.checkpoint",
    "evaluate": "*.npy",
    "export": "model.onnx",
    "quantize": "int8-static.onnx",
    "bundle": MANIFEST_NAME,
}


# the uninterrupted run


def test_output_of_the_run(line: Line) -> None:
    """stdout has the bundle's path only; stderr has the stages and the gates, but no bars."""
    assert line.returncode == 0, line.stderr
    assert line.stdout == f"{line.bundle}\n"
    lines = [text.split() for text in line.stderr.splitlines() if text.startswith("[")]
    assert [words[:2] for words in lines] == [[f"[{stage}]", "running"] for stage in STAGES]
    assert not {"\r", "\x1b", "\x08"} & set(line.stderr)
    assert "Traceback" not in line.stderr
    assert "gate 1  pass" in line.stderr
    assert "gate 2  int8-static  pass" in line.stderr


def test_the_store_has_one_artifact_per_stage_and_no_partial_files(line: Line) -> None:
    assert sorted(name.partition("-")[0] for name in published(line.store)) == sorted(STAGES)
    assert not [path for path in line.store.rglob("*") if {".partial", ".tmp"} & {path.suffix}]


def test_verify_and_inspect_accept_the_bundle(line: Line) -> None:
    assert factory_here("verify", line.bundle).stdout.startswith(f"{line.bundle}: ")
    inspected = factory_here("inspect", line.bundle).stdout
    for part in ("tiny-line", "3 labels: angry, calm, glad", "pass  min_retention"):
        assert part in inspected
    as_json = json.loads(factory_here("inspect", line.bundle, "--json").stdout)
    assert as_json == json.loads((line.bundle / MANIFEST_NAME).read_text(encoding="utf-8"))


def test_every_model_learned_the_task(line: Line) -> None:
    scores = read_manifest(line.bundle).scores
    for split in ("dev", "test"):
        assert scores["teacher"][split]["accuracy"]["value"] > 0.8
        assert scores["student"][split]["accuracy"]["value"] > 0.8
        assert scores["int8-static"][split]["accuracy"]["value"] > 0.7


def plain_predictions(folder: str, *files: str) -> None:
    """Print what transformers computes where our packages cannot be imported."""
    import csv
    import sys

    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    for name in list(sys.modules):
        if name.partition(".")[0] in ("factory", "serving"):
            sys.modules[name] = None  # type: ignore[assignment]
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    predicted = []
    for file in files:
        with Path(file).open(encoding="utf-8") as handle:
            texts = [row["text"] for row in csv.DictReader(handle, delimiter="\t")]
        predicted.append([])
        for text in texts:
            batch = tokenizer(text, truncation=True, max_length=24, return_tensors="pt")
            with torch.inference_mode():
                predicted[-1].append(int(model(**batch).logits.argmax()))
    sys.stdout.write(json.dumps({"id2label": model.config.id2label, "predicted": predicted}))


def test_transformers_alone_computes_the_stored_predictions(line: Line, forks: Forks) -> None:
    """One text at a time."""
    files = [line.recipe.with_name(f"{split}.tsv") for split in ("dev", "test")]
    folder = stage_directory(line.store, "distill") / "model"
    (output,) = forks.run(1, "test_command_run:plain_predictions", folder, *files)
    found = json.loads(output)
    assert found["id2label"] == {"0": "angry", "1": "calm", "2": "glad"}
    evaluated = stage_directory(line.store, "evaluate")
    for split, predicted in zip(("dev", "test"), found["predicted"], strict=True):
        assert np.load(evaluated / f"student.{split}.npy").tolist() == predicted
    assert len(set(found["predicted"][0])) == 3


def test_the_bundle_is_a_start_for_another_student(line: Line) -> None:
    source = find_model(str(line.bundle), ROOT, "student.start")
    assert Path(source.location) == stage_directory(line.store, "distill") / "model"


# run again


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


def test_a_raised_threshold_fails_without_training_or_publishing(line: Line) -> None:
    before = published(line.store)
    changed = ("--set", "gate.min_retention=1.5")
    stderr = error_of(factory_here("run", line.recipe, "--store", line.store, *changed), 3)
    assert "error: gate 1 (student in torch) failed, nothing was published" in stderr
    assert "FAIL  min_retention: " in stderr
    words = [text.split()[:2] for text in stderr.splitlines() if text.startswith("[")]
    assert words == [[f"[{stage}]", "cached"] for stage in STAGES[:5]]
    assert published(line.store) == before
    assert not list(line.store.glob("*.partial"))


def plan(line: Line, store: Path, *overrides: str) -> dict[str, tuple[str, str]]:
    """Status and reason of every stage."""
    arguments = [part for override in overrides for part in ("--set", override)]
    result = factory_here("plan", line.recipe, "--store", store, "--json", *arguments)
    return {row["stage"]: (row["status"], row["reason"]) for row in json.loads(result.stdout)}


def test_plan_shows_what_would_run_and_why(line: Line) -> None:
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
    lines = factory_here("plan", line.recipe, "--store", line.store).stdout.splitlines()
    assert [text.split()[1:] for text in lines] == [["cached", "nothing", "changed"]] * 8


# killed


def test_killed_in_every_stage_it_ends_with_the_same_bundle(
    line: Line, forks: Forks, tmp_path: Path
) -> None:
    store = tmp_path / "runs"
    delay = random.Random(7)
    interrupted = set()
    for stage in STAGES:
        run = forks.command("run", line.recipe, "--store", store)
        pattern = f"{stage}-*.partial/{WORK.get(stage, '*')}"
        run.wait_until(lambda pattern=pattern: any(store.glob(pattern)))
        time.sleep(delay.uniform(0, 0.05))
        run.send(signal.SIGKILL)
        run.finish()
        for directory in published(store):
            load_artifact(store / directory)  # complete, or not published at all
        interrupted |= {path.name.partition("-")[0] for path in store.glob("*.partial")}
    assert {"teacher", "distill"} <= interrupted
    run = forks.command("run", line.recipe, "--store", store)
    assert run.finish() == [0], run.stderr()
    bundle = stage_directory(store, "bundle")
    assert run.stdout() == f"{bundle}\n"
    assert_same_files(line.store, store)
    Predictor.open(bundle)
    assert read_manifest(bundle).version == read_manifest(line.bundle).version
    assert not list(store.glob("*.partial"))


def assert_same_files(expected: Path, found: Path) -> None:
    """Two stores have the same models, bit for bit, and the same predictions."""
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
    line: Line, forks: Forks, tmp_path: Path
) -> None:
    store = tmp_path / "runs"
    first = forks.command("run", line.recipe, "--store", store)
    assert first.wait_until(lambda: "[teacher] running" in first.stderr())
    first.send(signal.SIGSTOP)
    assert error_of(factory_here("run", line.recipe, "--store", store), 1) == (
        f"error: {store}: another run is using this store; wait for it, "
        "or give this one its own with --store DIRECTORY\n"
    )
    first.send(signal.SIGKILL)
    assert first.finish() == [-signal.SIGKILL]
    status = plan(line, store)
    assert status["teacher"] == ("resume", "interrupted")
    assert status["distill"] == ("run", "not run yet")


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
    changed = ("--set", "gate.min_value=0.5")
    stderr = error_of(factory_here("run", line.recipe, "--store", store, *changed), 1)
    state = f"{size - 1} bytes, not {size}" if damage == "cut" else "missing"
    assert stderr.splitlines()[-1] == (
        f"error: {file}: {state}; delete {file.parents[1]} and run again"
    )


def test_verify_finds_a_flipped_byte(line: Line, tmp_path: Path) -> None:
    bundle = stage_directory(line.copy_store(tmp_path), "bundle")
    file = bundle / read_manifest(bundle).model.file
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    message = error_of(factory_here("verify", bundle), 1)
    assert "onnx/model_quantized.onnx has sha256" in message


@pytest.mark.parametrize(
    ("stage", "reason"),
    [
        ("distill", "a file could not be written completely"),  # torch.save writes from C++
        ("export", "File too large"),
    ],
)
def test_a_full_disk_is_reported_in_one_line_and_the_next_run_resumes(
    line: Line, forks: Forks, tmp_path: Path, stage: str, reason: str
) -> None:
    """A limit on the size of files stands for the disk."""
    store = line.copy_store(tmp_path, "bundle", stage)
    run = forks.command("run", line.recipe, "--store", store, largest_file=20_000)
    assert run.finish() == [1], run.stderr()
    assert run.stdout() == ""
    (partial,) = store.glob("*.partial")
    assert run.stderr().splitlines()[-1] == (
        f"error: {partial}: {reason}; free disk space and run again, finished work is kept"
    )
    assert partial.name.startswith(f"{stage}-")
    assert "Traceback" not in run.stderr()
    again = forks.command("run", line.recipe, "--store", store)  # does not use incomplete files
    assert again.finish() == [0], again.stderr()
    assert_same_files(line.store, store)
