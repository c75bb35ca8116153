"""What identifies a source, and how a missing one is told."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from factory.data import check_batch, source_identity
from factory.errors import DataError
from factory.recipe.data import DataSettings


def test_files_are_identified_by_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"one")
    (tmp_path / "d.tsv.gz").write_bytes(b"two")
    data = DataSettings(train="t.csv", dev="d.tsv.gz")
    expected = {"train": hashlib.sha256(b"one"), "dev": hashlib.sha256(b"two")}
    assert source_identity(data, tmp_path) == {
        "files": {split: digest.hexdigest() for split, digest in expected.items()}
    }


def test_a_hub_name_is_identified_by_name_config_and_revision(tmp_path: Path) -> None:
    data = DataSettings(hub="some/set", config="one", revision="abc")
    named = {"hub": "some/set", "config": "one", "revision": "abc"}
    assert source_identity(data, tmp_path) == named


def test_a_local_folder_is_identified_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "h").mkdir()
    data = DataSettings(hub="h")
    identities = []
    for content in ("a", "b"):
        (tmp_path / "h" / "train.csv").write_text(content)
        identities.append(source_identity(data, tmp_path)["sha256"])
    assert identities[0] != identities[1]


def test_missing_files_are_told_together_with_similar_names(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\n")
    (tmp_path / "folder.csv").mkdir()
    data = DataSettings(train="trian.csv", dev="no/dev.csv", test="folder.csv")
    with pytest.raises(DataError) as caught:
        source_identity(data, tmp_path)
    train, dev, test = caught.value.problems
    assert "no such file trian.csv" in train
    assert "similar there: train.csv" in train
    assert f"the folder {tmp_path / 'no'} does not exist" in dev
    assert "folder.csv is a folder" in test


def test_unknown_endings(tmp_path: Path) -> None:
    (tmp_path / "t.txt").touch()
    (tmp_path / "d.json.gz").touch()
    with pytest.raises(DataError) as caught:
        source_identity(DataSettings(train="t.txt", dev="d.json.gz"), tmp_path)
    assert "none of the endings .csv, .tsv, .jsonl, .parquet" in caught.value.problems[0]
    assert "one JSON object per line" in caught.value.problems[1]


def test_a_path_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "sets").mkdir()
    with pytest.raises(DataError, match=r"no such folder \./set in .*; similar there: sets"):
        source_identity(DataSettings(hub="./set"), tmp_path)


def test_a_folder_of_the_working_directory_does_not_shadow_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere" / "imdb").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="would be read in place of the hub"):
        source_identity(DataSettings(hub="imdb"), tmp_path)


def test_planning_imports_no_heavy_library() -> None:
    code = (
        "import sys, factory.data\n"
        "sys.exit(','.join({'datasets', 'pyarrow', 'torch', 'pandas'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_fewer_rows_than_a_batch() -> None:
    check_batch(32, 32, "distillation")
    with pytest.raises(DataError, match="too little data for distillation") as caught:
        check_batch(31, 32, "distillation")
    assert "31 rows do not fill one batch of 32; lower batch_size to 31" in caught.value.problems[0]
