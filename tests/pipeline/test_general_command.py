"""General distillation by the command line: uninterrupted, killed, on two ranks, and as a start."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers.forked import Forks, Group
from helpers.pipeline_run import (
    error_of,
    factory_here,
    published,
    stage_directory,
    write_files,
    write_recipe,
)
from helpers.tiny_models import FILLERS, KEYWORDS, save_tiny, tiny_bert
from safetensors.numpy import load_file

from factory.data.dataset import Dataset
from factory.store import load_artifact

CHANGES = {
    "general.corpus": ["corpus.txt", "more.jsonl"],
    "general.max_length": 24,
    "general.epochs": 3.0,
    "general.batch_size": 8,
    "general.learning_rate": 3e-3,
    "student.hidden": 16,
    "student.dropout": 0.0,  # ranks draw their own masks
    "student.start": "general",
    "data.test": ...,
    "quantize.forms": ["fp32"],
    "gate.min_retention": 0.3,
}
STAGES = ("data", "teacher", "corpus", "general", "distill", "evaluate", "export", "bundle")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Path:
    """A recipe over two corpus files, with a base teacher that has no classifier."""
    folder = tmp_path_factory.mktemp("general")
    write_files(folder, dataset)
    save_tiny(tiny_bert().bert, folder / "teacher")
    chance = np.random.default_rng(8)
    words = [*FILLERS, *(word for own in KEYWORDS.values() for word in own)]
    texts = [" ".join(chance.choice(words, size=chance.integers(3, 30))) for _ in range(400)]
    (folder / "corpus.txt").write_text("\n".join(texts[:250]), encoding="utf-8")
    lines = [json.dumps({"text": text}) for text in texts[250:]]
    (folder / "more.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return write_recipe(folder / "recipe.toml", CHANGES)


@pytest.fixture(scope="module")
def finished(forks: Forks, recipe: Path) -> tuple[Path, Group]:
    """An uninterrupted `factory general`: its store and its output."""
    store = recipe.parent / "runs"
    run = forks.command("general", recipe, "--store", store)
    assert run.finish() == [0], run.stderr()
    return store, run


def stages_of(run: Group) -> list[list[str]]:
    return [line.split()[:2] for line in run.stderr().splitlines() if line.startswith("[")]


def test_general_makes_two_stages_and_prints_the_folder(finished: tuple[Path, Group]) -> None:
    store, run = finished
    assert run.stdout() == f"{stage_directory(store, 'general') / 'model'}\n"
    assert stages_of(run) == [["[corpus]", "running"], ["[general]", "running"]]
    assert sorted(name.partition("-")[0] for name in published(store)) == ["corpus", "general"]
    facts = load_artifact(stage_directory(store, "corpus")).facts
    assert facts["documents"] == 400
    assert facts["shards"] > 2
    assert not list(store.rglob("*.partial"))
    assert not list(store.rglob("*.tmp"))
    assert not list(store.rglob("*.checkpoint"))


def test_general_again_has_nothing_to_do(
    forks: Forks, recipe: Path, finished: tuple[Path, Group]
) -> None:
    store, first = finished
    before = published(store)
    again = forks.command("general", recipe, "--store", store, "--set", "distill.seed=5")
    assert again.finish() == [0]
    assert again.stdout() == first.stdout()
    assert published(store) == before


def test_a_run_starts_from_the_general_student(
    forks: Forks, recipe: Path, finished: tuple[Path, Group]
) -> None:
    """The start by name and by the printed path gives the same student."""
    store, general = finished
    by_name = forks.command("run", recipe, "--store", store)
    assert by_name.finish() == [0], by_name.stderr()
    words = dict(stages_of(by_name))
    assert list(words) == [f"[{stage}]" for stage in STAGES]
    assert words["[general]"] == words["[corpus]"] == "cached"
    expected = stage_directory(store, "distill")
    by_path = forks.command(
        "run", recipe, "--store", store, "--set", f"student.start={general.stdout().strip()}"
    )
    assert by_path.finish() == [0], by_path.stderr()
    assert [stage for stage, _ in stages_of(by_path)] == [
        f"[{stage}]" for stage in STAGES if stage not in ("corpus", "general")
    ]
    (found,) = set(store.glob("distill-*")) - {expected}
    for name in ("model/model.safetensors", "losses.csv"):
        assert (found / name).read_bytes() == (expected / name).read_bytes()


def test_killed_anywhere_it_ends_with_the_same_bytes(
    forks: Forks, recipe: Path, finished: tuple[Path, Group], tmp_path: Path
) -> None:
    store = tmp_path / "runs"
    chance = random.Random(3)
    patterns = ("corpus-*.partial/shard-00000.npy", "general-*.partial/general.checkpoint")
    for pattern in (patterns[0], patterns[1], patterns[1]):
        run = forks.command("general", recipe, "--store", store)
        assert run.wait_until(lambda pattern=pattern: any(store.glob(pattern)))
        time.sleep(chance.uniform(0, 0.05))
        run.send(signal.SIGKILL)
        run.finish()
    run = forks.command("general", recipe, "--store", store)
    assert run.finish() == [0], run.stderr()
    expected, _ = finished
    for stage in ("corpus", "general"):
        old, new = stage_directory(expected, stage), stage_directory(store, stage)
        assert old.name == new.name
        assert contents(old) == contents(new), stage


def contents(directory: Path) -> dict[str, bytes]:
    """Every file by name; the record has times in it, event files have their machine's name."""
    return {
        file.relative_to(directory).as_posix(): file.read_bytes()
        for file in sorted(directory.rglob("*"))
        if file.is_file()
        and file.name != "artifact.json"
        and file.relative_to(directory).parts[0] != "tensorboard"
    }


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ("general.batch_size=100000", 1, ["not fill one batch", "too little data for general"]),
        ("general.text=body", 1, ["more.jsonl, line 1: no key 'body'"]),
        ("general.corpus=none.txt", 1, ["general.corpus: no such file none.txt"]),
        ("general.max_length=64", 2, ["reads at most 32 tokens"]),
    ],
)
def test_errors(recipe: Path, tmp_path: Path, change: str, code: int, words: Sequence[str]) -> None:
    result = factory_here("general", recipe, "--store", tmp_path / "runs", "--set", change)
    message = error_of(result, code)
    for word in words:
        assert word in message


def test_a_recipe_without_a_corpus(recipe: Path, tmp_path: Path) -> None:
    plain = write_recipe(recipe.parent / "plain.toml")
    message = error_of(factory_here("general", plain, "--store", tmp_path / "runs"), 2)
    assert "no section [general]" in message


def test_two_ranks_train_nearly_the_student_of_one(
    forks: Forks, recipe: Path, finished: tuple[Path, Group], tmp_path: Path
) -> None:
    store = tmp_path / "two"
    group = forks.command("general", recipe, "--store", store, count=2)
    assert group.finish() == [0, 0], group.stderr()
    assert group.stdout() == f"{stage_directory(store, 'general') / 'model'}\n"
    assert group.stdout(1) == ""
    expected, found = (
        load_file(stage_directory(folder, "general") / "model" / "model.safetensors")
        for folder in (finished[0], store)
    )
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-2, err_msg=name)
