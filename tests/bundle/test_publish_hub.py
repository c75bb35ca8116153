"""Publishing with the real client to a fake Hub: everything is uploaded, or nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
from click.testing import Result
from fake_hub import TOKEN, Hub, running_hub
from helpers.pipeline_run import ROOT, factory_here
from helpers.scored_bundle import write_scored_bundle
from huggingface_hub.utils import reset_sessions
from msgspec.structs import replace

from factory.bundle.model_card import CardSources, card_metadata
from serving.bundle import describe_files, read_manifest, write_manifest


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that the client of this process uses, with a valid token."""
    with running_hub() as hub:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", hub.address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        reset_sessions()
        yield hub
    reset_sessions()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with a model card and a file that is not listed."""
    folder = tmp_path / "bundle-1"
    write_scored_bundle(folder)
    add_card(folder)
    (folder / "artifact.json").write_text("{}", encoding="utf-8")
    return folder


def add_card(folder: Path) -> None:
    manifest = read_manifest(folder)
    card = card_metadata(manifest, CardSources()) + "# tiny\n"
    (folder / "README.md").write_text(card, encoding="utf-8")
    files = {**manifest.files, **describe_files(folder, ["README.md"])}
    write_manifest(folder, replace(manifest, files=files))


def publish(bundle: Path, target: str = "me/tiny", *options: str) -> Result:
    return factory_here("publish", bundle, "--to", target, *options)


def content(bundle: Path) -> dict[str, bytes]:
    """The files to be published."""
    names = [*read_manifest(bundle).files, "manifest.json"]
    return {name: (bundle / name).read_bytes() for name in names}


def check_refused(result: Result, *words: str) -> None:
    assert (result.exit_code, result.stdout) == (1, "")
    for word in words:
        assert word in result.stderr


def test_every_file_is_uploaded_in_one_commit(hub: Hub, bundle: Path) -> None:
    result = publish(bundle, "me/tiny", "--private")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{hub.address}/me/tiny/commit/{1:040x}\n"
    repository = hub.repositories["me/tiny"]
    assert repository.private
    assert repository.files == {".gitattributes": b"", **content(bundle)}
    assert len(repository.commits) == 2
    assert "POST /api/validate-yaml" in hub.requests  # the hub checked the card's metadata
    assert hub.tokens <= {f"Bearer {TOKEN}", ""}


def test_update_of_an_existing_repository(hub: Hub, bundle: Path, tmp_path: Path) -> None:
    assert publish(bundle).exit_code == 0
    repository = hub.repositories["me/tiny"]
    repository.files["onnx/old.onnx"] = b"old"
    before = dict(repository.files)
    check_refused(publish(bundle), "me/tiny already exists", "--update")
    check_refused(publish(bundle, "me/tiny", "--update", "--private"), "is public")
    assert repository.files == before
    other = tmp_path / "bundle-2"
    write_scored_bundle(other, max_length=12)
    add_card(other)
    result = publish(other, "me/tiny", "--update")
    assert result.stdout == f"{hub.address}/me/tiny/commit/{2:040x}\n"
    assert repository.files == {".gitattributes": b"", **content(other)}


@pytest.mark.parametrize(
    "broken", ["/validate-yaml", "/preupload/main", "/objects/batch", "/commit/main"]
)
def test_a_failed_upload_deletes_the_new_repository(hub: Hub, bundle: Path, broken: str) -> None:
    hub.failing[broken] = 400
    check_refused(publish(bundle), "me/tiny", "nothing was published")
    assert hub.repositories == {}
    assert "DELETE /api/repos/delete" in hub.requests


def test_a_failed_update_changes_nothing(hub: Hub, bundle: Path) -> None:
    assert publish(bundle).exit_code == 0
    before = dict(hub.repositories["me/tiny"].files)
    hub.failing["/commit/main"] = 500
    check_refused(publish(bundle, "me/tiny", "--update"), "500", "nothing was published")
    hub.failing.clear()
    hub.concurrent_commit = True
    result = publish(bundle, "me/tiny", "--update")
    check_refused(result, "412", "was changed during the upload")
    assert hub.repositories["me/tiny"].commits[-1] == "f" * 40
    assert hub.repositories["me/tiny"].files == before
    assert "DELETE /api/repos/delete" not in hub.requests


def test_tokens(hub: Hub, bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    check_refused(publish(bundle, "foreign/tiny"), "403", "no write access")
    monkeypatch.setenv("HF_TOKEN", "hf_bad")
    result = publish(bundle)
    check_refused(result, "401", "the token is invalid")
    assert "hf_bad" not in result.stderr
    assert hub.repositories == {}
    hub.requests.clear()
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    check_refused(publish(bundle), "no token", "HF_TOKEN", "hf auth login")
    assert hub.requests == []


def test_no_network(hub: Hub, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", "http://127.0.0.1:9")
    check_refused(publish(bundle), "http://127.0.0.1:9 cannot be reached", "nothing was published")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    reset_sessions()
    check_refused(publish(bundle), "HF_HUB_OFFLINE is set")
    assert hub.requests == []


def test_a_broken_bundle_is_not_uploaded(hub: Hub, bundle: Path) -> None:
    (bundle / "README.md").write_text("changed", encoding="utf-8")
    check_refused(publish(bundle), "README.md")
    assert hub.requests == []


def test_the_environment_names_the_hub(hub: Hub, bundle: Path) -> None:
    """HF_ENDPOINT and HF_TOKEN, in a process of its own."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.address,
        "HF_TOKEN": TOKEN,
        "HF_HUB_OFFLINE": "0",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "factory", "publish", str(bundle), "--to", "me/own"]
    result = subprocess.run(
        command, cwd=bundle.parent, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert hub.repositories["me/own"].files.keys() - {".gitattributes"} == content(bundle).keys()
