"""Ten wrong inputs; each message states what is wrong, where, and what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.pipeline_run import error_of, factory_here, write_recipe
from helpers.tiny_models import save_tiny, tiny_bert

TEXTS = ("where is it", "send it back", "it broke", "thanks a lot", "pay again", "wrong size")


@dataclass(frozen=True)
class Wrong:
    """One wrong input.

    Args:
        prepare: changes the good folder; returns the command line to type in it.
        code: the exit code.
        what, where, advice: words that the one message must hold.
    """

    prepare: Callable[[Path], list[str]]
    code: int
    what: str
    where: str
    advice: str


def run_with(**changes: object) -> Callable[[Path], list[str]]:
    """`factory run` on the good recipe with some keys changed; __ stands for a dot."""

    def prepare(folder: Path) -> list[str]:
        dotted = {key.replace("__", "."): value for key, value in changes.items()}
        write_recipe(folder / "recipe.toml", dotted)
        return ["run", "recipe.toml"]

    return prepare


def recipe_text(old: str, new: str) -> Callable[[Path], list[str]]:
    """`factory validate` on the good recipe with its text changed."""

    def prepare(folder: Path) -> list[str]:
        recipe = folder / "recipe.toml"
        text = recipe.read_text(encoding="utf-8")
        assert old in text
        recipe.write_text(text.replace(old, new), encoding="utf-8")
        return ["validate", "recipe.toml"]

    return prepare


def dev_label(folder: Path) -> list[str]:
    """A label in dev that train does not have."""
    dev = folder / "dev.tsv"
    dev.write_text(dev.read_text(encoding="utf-8").replace("\trefund", "\trefunds", 1))
    return ["run", "recipe.toml"]


def folder_as_bundle(folder: Path) -> list[str]:
    """A model folder where a bundle belongs."""
    return ["verify", "teacher"]


def served_port(folder: Path) -> list[str]:
    """The port of the fixture `taken`."""
    (folder / "bundle").mkdir()
    return ["serve", "bundle", "--port", os.environ["TAKEN_PORT"]]


TABLE = {
    "wrong column": Wrong(
        run_with(data__text="txt"), 1,
        "no column 'txt'", "train.tsv: no column", "set data.text to one of them",
    ),
    "missing file": Wrong(
        run_with(data__train="trian.tsv"), 1,
        "no such file trian.tsv", "data.train", "similar names: train.tsv",
    ),
    "typo in the recipe": Wrong(
        recipe_text("learning_rate", "lerning_rate"), 2,
        "unknown key", "teacher.lerning_rate", "did you mean teacher.learning_rate?",
    ),
    "no space left": Wrong(
        run_with(), 1,
        "No space left on device", "data-", "free disk space",
    ),
    "wrong label": Wrong(
        dev_label, 1,
        "without a row in train", "dev.tsv: 1 label", "did you mean 'refund'?",
    ),
    "empty class": Wrong(
        run_with(data__labels=["other", "refund", "return"]), 1,
        "'return'", "train.tsv", "data.labels",
    ),
    "bad TOML": Wrong(
        recipe_text("[teacher]", "[teacher"), 2,
        "not valid TOML", "recipe.toml:", "correct that line",
    ),
    "port in use": Wrong(
        served_port, 1,
        "cannot listen", "port ", "choose others with --host and --port",
    ),
    "wrong bundle": Wrong(
        folder_as_bundle, 1,
        "manifest.json", "teacher", "give the directory of a bundle",
    ),
    "teacher not fine-tuned": Wrong(
        run_with(teacher__fine_tune=False), 1,
        "cannot be matched", "LABEL_0", "set teacher.fine_tune = true",
    ),
}  # fmt: skip


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A folder whose recipe would run."""
    rows = [(f"{text} {number}", ("refund", "other")[i % 2])
            for number in range(8) for i, text in enumerate(TEXTS)]  # fmt: skip
    for name, some in (("train", rows[12:]), ("dev", rows[:12]), ("test", rows[:12])):
        lines = ["text\tlabel", *("\t".join((f"{name} {text}", label)) for text, label in some)]
        (tmp_path / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    save_tiny(tiny_bert(("LABEL_0", "LABEL_1")), tmp_path / "teacher")
    write_recipe(tmp_path / "recipe.toml")
    return tmp_path


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A port in use."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        monkeypatch.setenv("TAKEN_PORT", str(listener.getsockname()[1]))
        yield


@pytest.mark.usefixtures("taken")
@pytest.mark.parametrize("name", TABLE)
def test_the_message(name: str, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = TABLE[name]
    if name == "no space left":
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "train.parquet")
        monkeypatch.setattr("factory.stages.data.load_dataset", _raising(full))
    with contextlib.chdir(good):
        message = error_of(factory_here(*wrong.prepare(good)), wrong.code)
    for words in (wrong.what, wrong.where, wrong.advice):
        assert words in message[message.index("error: ") :]


def _raising(error: OSError) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail
