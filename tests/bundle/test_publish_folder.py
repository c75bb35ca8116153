"""Publishing to a folder: whole, checked, and never over something else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import Result
from helpers.pipeline_run import factory_here
from helpers.scored_bundle import rule, write_scored_bundle

from factory.bundle.publish import repository_name
from factory.errors import PublishError
from serving.bundle import read_manifest, write_manifest
from serving.predictor import Predictor


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "bundle-1"
    write_scored_bundle(folder)
    (folder / "artifact.json").write_text("{}", encoding="utf-8")
    return folder


def publish(bundle: Path, target: Path, *options: str) -> Result:
    result = factory_here("publish", bundle, "--to", target, *options)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_a_folder_gets_the_bundle_and_nothing_of_the_store(bundle: Path, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "out"
    result = publish(bundle, target)
    assert (result.exit_code, result.stdout) == (0, f"{target}\n")
    expected = files(bundle)
    del expected["artifact.json"]
    assert files(target) == expected
    assert Predictor.open(target).logits(["a good film"]).shape == (1, 3)
    assert [path.name for path in target.parent.iterdir()] == ["out"]


def test_what_is_there_stays_unless_it_is_to_be_replaced(bundle: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    assert publish(bundle, target).exit_code == 0  # empty
    (target / "mine.txt").write_text("mine", encoding="utf-8")
    before = files(target)
    result = publish(bundle, target)
    assert result.exit_code == 1
    assert "already exists" in result.stderr
    assert files(target) == before
    assert publish(bundle, target, "--update").exit_code == 0
    assert "mine.txt" not in files(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "runs"]


def test_a_copy_that_fails_leaves_nothing(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[Any] = []

    def full(source: Path, target: Path) -> None:
        copied.append(target)
        if len(copied) == 2:
            raise OSError(28, "No space left on device", str(target))
        Path(target).write_bytes(Path(source).read_bytes())

    monkeypatch.setattr(shutil, "copyfile", full)
    result = publish(bundle, tmp_path / "out")
    assert result.exit_code == 1
    assert "No space left" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_a_copy_that_changed_on_the_way_is_refused(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flip(source: Path, target: Path) -> None:
        data = bytearray(Path(source).read_bytes())
        data[-1] ^= 1
        Path(target).write_bytes(bytes(data))

    monkeypatch.setattr(shutil, "copyfile", flip)
    assert publish(bundle, tmp_path / "out").exit_code == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        ([rule("min_value", 0.4, 0.5, passed=False)], "the gate failed (min_value:"),
        ([], "no gate results"),
    ],
)
def test_only_what_passed_its_gate_goes_out(
    bundle: Path, tmp_path: Path, gate: list[dict[str, Any]], words: str
) -> None:
    write_manifest(bundle, msgspec.structs.replace(read_manifest(bundle), gate=gate))
    result = publish(bundle, tmp_path / "out")
    assert result.exit_code == 1
    assert words in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("target", "repository"),
    [
        ("me/tiny", "me/tiny"),
        ("me/ti.ny-4_x", "me/ti.ny-4_x"),
        ("./me/tiny", None),
        ("/me/tiny", None),
        ("~/tiny", None),
        ("tiny", None),
        ("a/b/c", None),
        ("../x", None),
    ],
)
def test_a_target_is_a_repository_or_a_folder(target: str, repository: str | None) -> None:
    assert repository_name(target) == repository


def test_a_target_that_could_be_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PublishError, match=r"write \./out/tiny for a folder"):
        repository_name("out/tiny")


def test_private_requires_the_hub(bundle: Path, tmp_path: Path) -> None:
    assert publish(bundle, tmp_path / "out", "--private").exit_code == 2
