"""The manifest's schema and the checksums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from serving.bundle import (
    MANIFEST_NAME,
    FileRecord,
    describe_files,
    read_manifest,
    sha256_file,
    verify_files,
    write_manifest,
)
from serving.errors import BundleError

MakeBundle = Callable[..., Path]


def edit(directory: Path, **changes: Any) -> None:
    """Change top-level fields of a manifest on disk."""
    path = directory / MANIFEST_NAME
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


def flip_byte(path: Path) -> None:
    """Change the middle byte and leave the size."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_sha256_of_known_bytes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    # the example of FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(tmp_path / "abc") == expected


def test_manifest_survives_writing_and_reading(bundle: Path, tmp_path: Path) -> None:
    manifest = msgspec.structs.replace(
        read_manifest(bundle), gate=[{"rule": "min_value", "passed": True}], scores={"n": 872}
    )
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST_NAME]


def test_manifest_is_readable_and_keeps_field_order(bundle: Path) -> None:
    lines = (bundle / MANIFEST_NAME).read_text("utf-8").splitlines()
    assert lines[1:3] == ['  "format": "tinybert-factory-bundle",', '  "format_version": 1,']


def test_facts_default_to_empty_and_are_not_shared(bundle: Path) -> None:
    first, second = read_manifest(bundle), read_manifest(bundle)
    first.scores["accuracy"] = 1.0
    assert second.scores == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "format is 'other'"),
        ({"format_version": 2}, "format_version is 2, this reads 1"),
        ({"colour": "red"}, "unknown field `colour`"),
        ({"task": "regression"}, "regression has one label, labels lists 3"),
        ({"labels": ["only"]}, "two labels or more, got 1"),
        ({"labels": ["same", "same"]}, "labels lists a name twice"),
        ({"labels": [1, 2]}, r"\$\.labels\[0\]"),
        ({"version": "not hex"}, r"\$\.version"),
        ({"max_length": 0}, r"\$\.max_length"),
        ({"files": {"a": {"sha256": "00", "size_bytes": 1}}}, "sha256"),
        ({"model": {}}, "missing required field `file`"),
    ],
)
def test_wrong_manifest_is_refused(
    make_bundle: MakeBundle, changes: dict[str, Any], message: str
) -> None:
    directory = make_bundle()
    edit(directory, **changes)
    with pytest.raises(BundleError, match=message) as caught:
        read_manifest(directory)
    assert str(directory / MANIFEST_NAME) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": "\xff"}', b"null"])
def test_broken_json_is_a_bundle_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(BundleError, match="not a valid manifest"):
        read_manifest(tmp_path)


def test_directory_without_manifest(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="No such file"):
        read_manifest(tmp_path / "nowhere")


def test_describe_files_measures_and_hashes(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(b"12345")
    expected = FileRecord(hashlib.sha256(b"12345").hexdigest(), 5)
    assert describe_files(tmp_path, ["onnx/model.onnx"]) == {"onnx/model.onnx": expected}


def test_describe_files_names_every_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        describe_files(tmp_path, ["one", "../two"])
    assert caught.value.problems == (
        "one is missing",
        "'../two' is not a plain path inside the bundle",
    )


def test_intact_bundle_verifies(bundle: Path) -> None:
    verify_files(bundle, read_manifest(bundle))


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "tokenizer_config.json"])
def test_one_flipped_byte_is_found(make_bundle: MakeBundle, name: str) -> None:
    directory = make_bundle()
    flip_byte(directory / name)
    with pytest.raises(BundleError, match=rf"{name} has sha256 [0-9a-f]{{12}}, the manifest"):
        verify_files(directory, read_manifest(directory))


def test_all_problems_are_reported_together(make_bundle: MakeBundle) -> None:
    directory = make_bundle()
    flip_byte(directory / "model.onnx")
    (directory / "tokenizer.json").unlink()
    with (directory / "tokenizer_config.json").open("ab") as file:
        file.write(b" ")
    with pytest.raises(BundleError, match="3 problems") as caught:
        verify_files(directory, read_manifest(directory))
    hashed, missing, grown = caught.value.problems
    assert hashed.startswith("model.onnx has sha256")
    assert missing == "tokenizer.json is missing"
    assert "bytes, the manifest says" in grown


@pytest.mark.parametrize(
    "path", ["../x", "/etc/hostname", "a/../../x", "./model.onnx", "", ".", "a\\b", "a\0b", "a//b"]
)
def test_paths_that_could_escape_are_refused(make_bundle: MakeBundle, path: str) -> None:
    directory = make_bundle()
    manifest = read_manifest(directory)
    (directory.parent / "x").write_bytes(b"")
    empty = FileRecord(hashlib.sha256(b"").hexdigest(), 0)
    files = {**manifest.files, path: empty}
    with pytest.raises(BundleError, match="not a plain path inside the bundle"):
        verify_files(directory, msgspec.structs.replace(manifest, files=files))


def test_link_out_of_the_bundle_is_refused(make_bundle: MakeBundle) -> None:
    directory = make_bundle()
    (directory / "tokenizer.json").rename(directory.parent / "outside.json")
    (directory / "tokenizer.json").symlink_to(directory.parent / "outside.json")
    with pytest.raises(BundleError, match=r"tokenizer\.json links to a place outside"):
        verify_files(directory, read_manifest(directory))


def test_link_inside_the_bundle_is_accepted(make_bundle: MakeBundle) -> None:
    directory = make_bundle()
    (directory / "tokenizer.json").rename(directory / "stored")
    (directory / "tokenizer.json").symlink_to("stored")
    verify_files(directory, read_manifest(directory))


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_model_and_tokenizer_must_be_listed(make_bundle: MakeBundle, name: str) -> None:
    directory = make_bundle()
    manifest = read_manifest(directory)
    files = {path: record for path, record in manifest.files.items() if path != name}
    with pytest.raises(BundleError, match=f"{name} is needed but not listed"):
        verify_files(directory, msgspec.structs.replace(manifest, files=files))
