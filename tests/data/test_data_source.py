"""What identifies a source, and the messages for missing ones."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from factory.data.load import check_batch
from factory.data.source import source_identity
from factory.errors import DataError
from factory.recipe.data import DataSettings


def test_files_are_identified_by_their_bytes_and_format(tmp_path: Path) -> None:
    content = b'text\tlabel\n"a"\tx\n'
    (tmp_path / "t.csv").write_bytes(content)
    (tmp_path / "d.csv").write_bytes(gzip.compress(content))
    data = DataSettings(train="t.csv", dev="d.csv")
    plain: Any = source_identity(data, tmp_path)
    quoted: Any = source_identity(data.model_copy(update={"quoting": "standard"}), tmp_path)
    assert plain["files"]["train"] == {
        "sha256": hashlib.sha256(content).hexdigest(),
        "format": {
            "kind": "delimited", "gzipped": False, "encoding": "utf-8", "delimiter": "\t",
            "quoting": "none", "header": True,
        },
    }  # fmt: skip
    assert plain["files"]["dev"]["format"]["gzipped"]
    assert quoted["files"]["train"] != plain["files"]["train"]


def test_a_hub_name_is_identified_by_revision_and_a_folder_by_content(tmp_path: Path) -> None:
    data = DataSettings(hub="some/set", config="one", revision="abc")
    named = {"hub": "some/set", "config": "one", "revision": "abc"}
    assert source_identity(data, tmp_path) == named
    (tmp_path / "h").mkdir()
    identities = []
    for content in ("a", "b"):
        (tmp_path / "h" / "train.csv").write_text(content)
        identities.append(source_identity(DataSettings(hub="h"), tmp_path)["sha256"])
    assert identities[0] != identities[1]


def test_missing_and_empty_files_are_reported_together(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\n")
    (tmp_path / "folder.csv").mkdir()
    data = DataSettings(train="trian.csv", dev="no/dev.csv", test="folder.csv")
    with pytest.raises(DataError) as caught:
        source_identity(data, tmp_path)
    train, dev, test = caught.value.problems
    assert "no such file trian.csv" in train
    assert "similar names: train.csv" in train
    assert f"the folder {tmp_path / 'no'} does not exist" in dev
    assert "folder.csv is a folder" in test
    (tmp_path / "t.txt").touch()
    (tmp_path / "d.json.gz").write_bytes(gzip.compress(b" \n"))
    with pytest.raises(DataError) as caught:
        source_identity(DataSettings(train="t.txt", dev="d.json.gz"), tmp_path)
    for problem, name in zip(caught.value.problems, ("t.txt", "d.json.gz"), strict=True):
        assert problem.startswith(f"{name}: is empty")


def test_a_path_without_a_folder_and_a_folder_that_shadows_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sets" / "imdb").mkdir(parents=True)
    with pytest.raises(DataError, match=r"no such folder \./set in .*; similar names: sets"):
        source_identity(DataSettings(hub="./set"), tmp_path)
    monkeypatch.chdir(tmp_path / "sets")
    with pytest.raises(DataError, match="would be read instead of the hub"):
        source_identity(DataSettings(hub="imdb"), tmp_path)


def test_text_files_are_read_without_a_heavy_library(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\na,x\nb,y\nc,x\nd,y\n")
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from factory.data.load import load_dataset\n"
        "from factory.recipe.data import DataSettings\n"
        "load_dataset(DataSettings(train='t.csv', dev_fraction=0.5), Path(), Path(), print)\n"
        "sys.exit(','.join({'datasets', 'pyarrow', 'torch', 'pandas'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_fewer_rows_than_a_batch() -> None:
    check_batch(32, 32, "distillation")
    with pytest.raises(DataError, match="too little data for distillation") as caught:
        check_batch(31, 32, "distillation")
    assert "31 rows do not fill one batch of 32; lower batch_size to 31" in caught.value.problems[0]
