"""Artifacts on disk: identity, publication in one step, resuming, the lock."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from factory.errors import StoreError
from factory.store import (
    ARTIFACT_FILE,
    ArtifactKey,
    Store,
    load_artifact,
    read_json,
    sha256_of_directory,
    write_json,
)

STEP = ArtifactKey("teacher", 1, {"epochs": 3.0, "seeds": [1, 2]}, {"data": "ff"})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "runs")


def write_weights(directory: Path) -> dict[str, Any]:
    """A stage that works."""
    (directory / "checkpoints").mkdir(exist_ok=True)
    (directory / "weights.bin").write_bytes(b"12345")
    (directory / "checkpoints" / "1.bin").write_bytes(b"1")
    return {"accuracy": 0.9}


def never(directory: Path) -> dict[str, Any]:
    """A stage that must not run."""
    raise AssertionError(f"ran in {directory}")


# identity


def test_the_fingerprint_is_the_hash_of_all_that_decides() -> None:
    identity = '["teacher",1,{"epochs":3.0,"seeds":[1,2]},{"data":"ff"}]'
    assert STEP.fingerprint == hashlib.sha256(identity.encode()).hexdigest()
    assert STEP.directory_name == "teacher-" + STEP.fingerprint[:12]


@pytest.mark.parametrize(
    "other",
    [
        replace(STEP, stage="student"),
        replace(STEP, version=2),
        replace(STEP, settings={"epochs": 3.5, "seeds": [1, 2]}),
        replace(STEP, settings={"epochs": 3.0, "seeds": [2, 1]}),
        replace(STEP, settings={"epochs": 3.0}),
        replace(STEP, inputs={"data": "fe"}),
        replace(STEP, inputs={"corpus": "ff"}),
        replace(STEP, inputs={}),
        replace(STEP, settings={}, inputs={"epochs": "3.0"}),
    ],
)
def test_the_fingerprint_changes_with_every_ingredient(other: ArtifactKey) -> None:
    assert other.fingerprint != STEP.fingerprint


def test_the_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    first = ArtifactKey("s", 1, {"a": 1, "b": {"c": 2, "d": 3}}, {"x": "1", "y": "2"})
    second = ArtifactKey("s", 1, {"b": {"d": 3, "c": 2}, "a": 1}, {"y": "2", "x": "1"})
    assert first.fingerprint == second.fingerprint


def test_a_directorys_hash_is_that_of_names_and_bytes(tmp_path: Path) -> None:
    def folder(name: str, files: dict[str, bytes]) -> str:
        for file, content in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return sha256_of_directory(tmp_path / name)

    files = {"a.txt": b"one", "b/c.txt": b"two"}
    expected = hashlib.sha256(
        b"a.txt\0"
        + hashlib.sha256(b"one").digest()
        + b"b/c.txt\0"
        + hashlib.sha256(b"two").digest()
    )
    same = folder("1", files)
    assert same == expected.hexdigest()
    assert folder("2", dict(reversed(files.items()))) == same
    os.utime(tmp_path / "2" / "a.txt", (1, 1))
    assert sha256_of_directory(tmp_path / "2") == same
    others = [
        folder("3", {"a.txt": b"one", "b/c.txt": b"twO"}),
        folder("4", {"A.txt": b"one", "b/c.txt": b"two"}),
        folder("5", {"a.txt": b"two", "b/c.txt": b"one"}),
        folder("6", {**files, "empty": b""}),
    ]
    assert len({same, *others}) == 5


# publication


def test_a_published_artifact_holds_files_facts_and_its_record(store: Store) -> None:
    assert store.status(STEP) == "run"
    artifact = store.build(STEP, "sst2", write_weights)
    assert store.status(STEP) == "cached"
    assert artifact.directory == store.root / STEP.directory_name
    assert artifact.fingerprint == STEP.fingerprint
    assert artifact.facts == {"accuracy": 0.9}
    assert (artifact.directory / "weights.bin").read_bytes() == b"12345"
    assert not store.partial(STEP).exists()
    record = json.loads((artifact.directory / ARTIFACT_FILE).read_text(encoding="utf-8"))
    assert record.pop("seconds") >= 0
    assert record == {
        "stage": "teacher",
        "stage_version": 1,
        "fingerprint": STEP.fingerprint,
        "recipe_name": "sst2",
        "settings": {"epochs": 3.0, "seeds": [1, 2]},
        "inputs": {"data": "ff"},
        "facts": {"accuracy": 0.9},
        "files": {"checkpoints/1.bin": 1, "weights.bin": 5},
    }


def test_nothing_is_published_while_a_stage_works(store: Store) -> None:
    def make(directory: Path) -> dict[str, Any]:
        assert directory == store.partial(STEP)
        assert not store.directory(STEP).exists()
        assert store.status(STEP) == "resume"
        return write_weights(directory)

    assert store.build(STEP, "r", make).facts == {"accuracy": 0.9}


def test_a_failing_stage_leaves_only_its_partial_directory(store: Store) -> None:
    def fail(directory: Path) -> dict[str, Any]:
        write_weights(directory)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        store.build(STEP, "r", fail)
    assert [path.name for path in store.root.iterdir()] == [f"{STEP.directory_name}.partial"]
    assert not (store.partial(STEP) / ARTIFACT_FILE).exists()
    assert store.status(STEP) == "resume"
    assert store.records("teacher") == []
    with pytest.raises(StoreError, match="not a finished artifact"):
        store.load(STEP)


def test_facts_that_are_no_json_publish_nothing(store: Store) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.build(STEP, "r", lambda directory: {"loss": float("nan")})
    assert store.status(STEP) == "resume"


def test_a_resumed_stage_finds_what_it_left(store: Store) -> None:
    runs: list[list[str]] = []

    def make(directory: Path) -> dict[str, Any]:
        runs.append(sorted(path.name for path in directory.iterdir()))
        if len(runs) == 1:
            (directory / "checkpoint-100").write_text("half")
            raise KeyboardInterrupt
        return {"resumed_from": (directory / "checkpoint-100").read_text()}

    with pytest.raises(KeyboardInterrupt):
        store.build(STEP, "r", make)
    assert store.build(STEP, "r", make).facts == {"resumed_from": "half"}
    assert runs == [[], ["checkpoint-100"]]


def test_another_step_does_not_resume_this_one(store: Store) -> None:
    store.partial(STEP).mkdir(parents=True)
    other = replace(STEP, version=2)
    assert store.status(other) == "run"
    assert store.build(
        other, "r", lambda directory: {"found": len(list(directory.iterdir()))}
    ).facts == {"found": 0}
    assert store.status(STEP) == "resume"


def test_a_cached_artifact_is_not_built_again(store: Store) -> None:
    first = store.build(STEP, "r", write_weights)
    again = store.build(STEP, "another label", never)
    assert again == first
    assert Store(store.root).build(STEP, "r", never) == first


def test_discard_removes_the_partial_directory_only(store: Store) -> None:
    store.build(STEP, "r", write_weights)
    other = replace(STEP, version=2)
    store.partial(other).mkdir()
    store.discard(other)
    store.discard(other)
    assert store.status(other) == "run"
    assert store.status(STEP) == "cached"


def test_a_record_half_written_by_a_killed_process_is_no_content(store: Store) -> None:
    store.partial(STEP).mkdir(parents=True)
    (store.partial(STEP) / f".{ARTIFACT_FILE}.tmp").write_text('{"stage": "tea')
    store.build(STEP, "r", write_weights)
    assert store.load(STEP).facts == {"accuracy": 0.9}


def test_a_process_killed_between_record_and_rename_is_resumed(store: Store) -> None:
    store.build(STEP, "r", write_weights)
    store.directory(STEP).rename(store.partial(STEP))
    assert store.status(STEP) == "resume"
    assert store.build(STEP, "r", write_weights).facts == {"accuracy": 0.9}


# damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "weights.bin").unlink(), "weights.bin: missing"),
        (lambda folder: (folder / "checkpoints" / "1.bin").unlink(), "1.bin: missing"),
        (
            lambda folder: (folder / "weights.bin").write_bytes(b"1234"),
            "weights.bin: 4 bytes, not 5",
        ),
        (
            lambda folder: (folder / ARTIFACT_FILE).write_text("{"),
            "artifact.json: cannot be read as JSON",
        ),
        (lambda folder: (folder / ARTIFACT_FILE).write_text("[]"), "not a JSON object"),
        (
            lambda folder: write_json(folder / ARTIFACT_FILE, {"fingerprint": "0"}),
            "unexpected fingerprint",
        ),
    ],
)
def test_a_damaged_artifact_is_refused_not_used(
    store: Store, damage: Callable[[Path], Any], message: str
) -> None:
    directory = store.build(STEP, "r", write_weights).directory
    damage(directory)
    with pytest.raises(StoreError, match=message) as caught:
        store.load(STEP)
    assert str(directory) in str(caught.value)
    with pytest.raises(StoreError, match=message):
        store.build(STEP, "r", never)


def test_a_directory_without_its_record_is_refused_before_the_work(store: Store) -> None:
    directory = store.build(STEP, "r", write_weights).directory
    (directory / ARTIFACT_FILE).unlink()
    with pytest.raises(StoreError, match="move it away and run again"):
        store.build(STEP, "r", never)


def test_an_added_file_does_no_harm(store: Store) -> None:
    directory = store.build(STEP, "r", write_weights).directory
    (directory / "note.txt").write_text("mine")
    assert store.load(STEP).facts == {"accuracy": 0.9}


def test_an_artifact_loads_by_its_directory_alone(store: Store) -> None:
    artifact = store.build(STEP, "r", write_weights)
    assert load_artifact(artifact.directory) == artifact


# records


def test_records_come_newest_first_and_without_unfinished_ones(store: Store) -> None:
    for version, age in ((1, 30), (2, 10), (3, 20)):
        step = replace(STEP, version=version)
        directory = store.build(step, f"label {version}", write_weights).directory
        os.utime(directory / ARTIFACT_FILE, (1_000_000 - age, 1_000_000 - age))
    unfinished = store.build(replace(STEP, version=4), "label 4", write_weights).directory
    unfinished.rename(unfinished.with_name(f"{unfinished.name}.partial"))
    store.build(replace(STEP, stage="student"), "label 5", write_weights)
    assert [record["recipe_name"] for record in store.records("teacher")] == [
        "label 2",
        "label 3",
        "label 1",
    ]
    assert [record["recipe_name"] for record in store.records("student")] == ["label 5"]


def test_a_store_that_is_not_there_has_no_records(store: Store) -> None:
    assert store.records("teacher") == []
    assert not store.root.exists()


# JSON


def test_json_is_written_and_read_back(tmp_path: Path) -> None:
    data = {"text": "naïve ☃", "number": 0.1, "list": [1, None, True]}
    write_json(tmp_path / "a.json", data)
    assert read_json(tmp_path / "a.json") == data
    assert "naïve ☃" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("data", [{"a": float("nan")}, {"a": float("inf")}, {"a": object()}])
def test_data_that_is_no_json_leaves_the_old_file(tmp_path: Path, data: dict[str, Any]) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises((ValueError, TypeError)):
        write_json(path, data)
    assert read_json(path) == {"old": 1}


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"rows": [0] * 5000})
    enough = threading.Event()

    def write_on() -> None:
        number = 0
        while not enough.is_set():
            number += 1
            write_json(path, {"rows": [number] * 5000})

    writer = threading.Thread(target=write_on)
    writer.start()
    seen = set()
    try:
        while len(seen) < 20 and writer.is_alive():
            rows = read_json(path)["rows"]
            assert len(rows) == 5000
            assert len(set(rows)) == 1
            seen.add(rows[0])
    finally:
        enough.set()
        writer.join()
    assert len(seen) == 20
