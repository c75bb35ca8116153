"""Publishing to a folder: complete and verified, or nothing."""

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


def publish(bundle: Path, target: Path, *options: str, code: int = 0) -> Result:
    result = factory_here("publish", bundle, "--to", target, *options)
    assert result.exit_code == code, result.stderr
    return result


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_a_folder_gets_the_files_of_the_bundle_alone(bundle: Path, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "out"
    assert publish(bundle, target).stdout == f"{target}\n"
    expected = files(bundle)
    del expected["artifact.json"]
    assert files(target) == expected
    assert Predictor.open(target).logits(["a good film"]).shape == (1, 3)
    assert [path.name for path in target.parent.iterdir()] == ["out"]


def test_an_existing_folder_is_replaced_only_with_update(bundle: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    publish(bundle, target)  # empty
    (target / "mine.txt").write_text("mine", encoding="utf-8")
    before = files(target)
    assert "already exists" in publish(bundle, target, code=1).stderr
    assert files(target) == before
    publish(bundle, target, "--update")
    assert "mine.txt" not in files(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "runs"]


@pytest.mark.parametrize("failure", ["full disk", "changed bytes"])
def test_a_failed_copy_leaves_nothing(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    def copy(source: Path, target: Path) -> None:
        data = bytearray(Path(source).read_bytes())
        if failure == "full disk" and Path(source).name == "tokenizer.json":
            raise OSError(28, "No space left on device", str(target))
        data[-1] ^= 1
        Path(target).write_bytes(bytes(data))

    monkeypatch.setattr(shutil, "copyfile", copy)
    result = publish(bundle, tmp_path / "out", code=1)
    assert ("No space left" in result.stderr) == (failure == "full disk")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        ([rule("min_value", 0.4, 0.5, passed=False)], "the gate failed (min_value:"),
        ([], "no gate results"),
    ],
)
def test_only_a_bundle_that_passed_its_gate_is_published(
    bundle: Path, tmp_path: Path, gate: list[dict[str, Any]], words: str
) -> None:
    write_manifest(bundle, msgspec.structs.replace(read_manifest(bundle), gate=gate))
    assert words in publish(bundle, tmp_path / "out", code=1).stderr
    assert not (tmp_path / "out").exists()


def test_a_target_is_a_repository_or_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("me/tiny", "me/ti.ny-4_x"):
        assert repository_name(name) == name
    for folder in ("./me/tiny", "/me/tiny", "~/tiny", "tiny", "a/b/c", "../x"):
        assert repository_name(folder) is None
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PublishError, match=r"write \./out/tiny for a folder"):
        repository_name("out/tiny")


def test_private_needs_the_hub(bundle: Path, tmp_path: Path) -> None:
    publish(bundle, tmp_path / "out", "--private", code=2)
