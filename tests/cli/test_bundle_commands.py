"""evaluate, inspect, verify and serve."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from helpers.pipeline_run import ROOT, Line, clean_environment, error_of, factory_here

from serving.bundle import MANIFEST_NAME


def test_evaluate_a_bundle_and_a_folder(line: Line) -> None:
    dev = line.recipe.with_name("dev.tsv")
    (model,) = line.store.glob("distill-*/model")
    bundle = factory_here("evaluate", line.bundle, dev)
    assert bundle.exit_code == 0
    assert bundle.stdout.startswith("dev: 90 rows\naccuracy")
    manifest = json.loads((line.bundle / MANIFEST_NAME).read_text(encoding="utf-8"))
    for place, name in ((line.bundle, "int8-static"), (model, "student")):
        facts = json.loads(
            factory_here("evaluate", place, dev, "--max-length", 24, "--json").stdout
        )
        assert facts["rows"] == 90
        recorded = manifest["scores"][name]["dev"]["accuracy"]["value"]
        assert facts["scores"]["accuracy"]["value"] == pytest.approx(recorded)


def test_evaluate_names_an_unknown_label(line: Line, tmp_path: Path) -> None:
    file = tmp_path / "new.csv"
    file.write_text("text,label\nmy lamp,calm\nthe lamp,furious\n", encoding="utf-8")
    message = error_of(factory_here("evaluate", line.bundle, file), 1)
    assert str(file) in message
    assert "furious" in message
    assert "line 3" in message


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["missing.csv"], "missing.csv"),
        (["new.csv", "--label", "lable"], "lable"),
        (["new.csv", "--text", "body"], "body"),
        (["new.csv", "--text-pair", "label"], "tiny-line takes single texts"),
        (["new.json"], "line 1: invalid JSON"),
    ],
)
def test_evaluate_on_data_that_does_not_fit(
    line: Line, tmp_path: Path, arguments: list[str], part: str
) -> None:
    for name in ("new.csv", "new.json"):
        (tmp_path / name).write_text("text,label\nmy lamp,calm\n", encoding="utf-8")
    result = factory_here("evaluate", line.bundle, tmp_path / arguments[0], *arguments[1:])
    assert part in error_of(result, 1)


def test_evaluate_something_else(tmp_path: Path) -> None:
    message = error_of(factory_here("evaluate", tmp_path, tmp_path / "x.csv"), 1)
    assert "neither a bundle (manifest.json) nor a model folder (config.json)" in message


def test_evaluate_a_folder_with_less_than_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    (tmp_path / "x.csv").write_text("text,label\na,b\n", encoding="utf-8")
    message = error_of(factory_here("evaluate", tmp_path, tmp_path / "x.csv"), 1)
    assert str(tmp_path) in message


@pytest.mark.parametrize("command", ["inspect", "verify"])
@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "No such file or directory"),
        ("{}", "not a valid manifest"),
        ('{"format": "other", "format_version": 1}', "format is 'other'"),
    ],
)
def test_a_folder_that_is_no_bundle(
    tmp_path: Path, command: str, content: str | None, part: str
) -> None:
    if content is not None:
        (tmp_path / MANIFEST_NAME).write_text(content, encoding="utf-8")
    message = error_of(factory_here(command, tmp_path), 1)
    assert str(tmp_path / MANIFEST_NAME) in message
    assert part in message


def test_serve_answers_and_stops(line: Line) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "factory", "serve", str(line.bundle), "--port", "0"],
        cwd=ROOT,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        message = json.loads(process.stderr.readline())["message"]
        assert message.startswith("serving tiny-line "), message
        url = message.split()[-1]
        deadline = time.monotonic() + 30
        while httpx.get(f"{url}/ready", timeout=10).status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        answer = httpx.post(f"{url}/predict", json={"text": "thanks, great, love it"}).json()
        assert answer["predictions"][0]["label"] == "glad"
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=30)
        assert (process.returncode, stdout) == (0, "")
        assert {json.loads(line)["level"] for line in stderr.splitlines()} == {"info"}
    finally:
        process.kill()
        process.communicate()


def test_serve_with_a_bad_setting_exits_with_2(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVING_THREADS", "none")
    message = error_of(factory_here("serve", line.bundle), 2)
    assert message.startswith("error: SERVING_THREADS")


def test_serve_refuses_a_damaged_bundle(line: Line, tmp_path: Path) -> None:
    store = line.copy_store(tmp_path)
    (bundle,) = store.glob("bundle-*")
    (bundle / "config.json").write_text("{}", encoding="utf-8")
    message = error_of(factory_here("serve", bundle, "--port", 0), 1)
    assert "config.json" in message
