"""A recipe that runs in seconds: tiny labelled files, a tiny teacher, the command line on them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from factory import pipeline
from factory.cli.main import main
from factory.data.dataset import Dataset, Split
from factory.recipe.file import parse_recipe
from factory.recipe.recipe import Recipe
from factory.store import Store
from helpers.forked import Forks
from helpers.minimal_recipe import set_keys

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Line:
    """A finished run: its recipe, its store, and the result of the command."""

    recipe: Path
    store: Path
    returncode: int
    stdout: str
    stderr: str

    @property
    def bundle(self) -> Path:
        """The bundle's directory."""
        return stage_directory(self.store, "bundle")

    def copy_store(self, directory: Path, *without: str) -> Path:
        """A copy of the store to change, without the artifacts of some stages."""
        ignored = shutil.ignore_patterns(*(f"{stage}-*" for stage in without))
        return Path(shutil.copytree(self.store, directory / "store", ignore=ignored))

    def run_changed(
        self, store: Path, changes: Mapping[str, Any] | None = None, *, report: bool = False
    ) -> Path:
        """Run the recipe with some keys changed on a copy of the store, in this process."""
        recipe = line_recipe({"distill.baseline": "random", **(changes or {})})
        return pipeline.run(recipe, self.recipe.parent, Store(store), "cpu", report=report)


def run_line(directory: Path, dataset: Dataset, forks: Forks) -> Line:
    """Write files, teacher and recipe into a folder and run the recipe with the command line."""
    from helpers.tiny_models import save_tiny, tiny_bert, tiny_split

    write_files(directory, replace(dataset, test=tiny_split("test", 60, seed=13)))
    # two outputs: the classifier is replaced; dropout: random states are part of a checkpoint
    model = tiny_bert(
        ("LABEL_0", "LABEL_1"), hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1
    )
    save_tiny(model, directory / "teacher")
    recipe = write_recipe(directory / "recipe.toml", {"distill.baseline": "random"})
    store = directory / "runs"
    run = forks.command("run", recipe, "--store", store)
    (code,) = run.finish()
    return Line(recipe, store, code, run.stdout(), run.stderr())


def line_tree(changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A fresh recipe tree over the files of `write_inputs`, with some dotted keys set.

    A value of ... removes the key.
    """
    tree: dict[str, Any] = {
        "name": "tiny-line",
        "data": {"train": "train.tsv", "dev": "dev.tsv", "test": "test.tsv", "max_length": 24},
        "teacher": {
            "model": "teacher",
            "epochs": 5.0,
            "batch_size": 16,
            "learning_rate": 5e-3,
        },
        # dropout, so that resuming needs the random state of the checkpoint
        "student": {"layers": 2, "hidden": 24, "heads": 4, "intermediate": 32, "dropout": 0.1},
        "distill": {
            "batch_size": 16,
            "intermediate": {"epochs": 3.0, "learning_rate": 3e-3},
            "prediction": {"epochs": 3.0, "learning_rate": 3e-3},
        },
        "quantize": {"forms": ["int8-static"]},
        "gate": {"min_retention": 0.6, "max_quantization_drop": 0.2},
    }
    set_keys(tree, changes or {})
    return tree


def line_recipe(changes: Mapping[str, Any] | None = None) -> Recipe:
    """The tree as a recipe."""
    return parse_recipe(line_tree(changes))


def run_here(
    base: Path, dataset: Dataset, changes: Mapping[str, Any], until: str = "bundle"
) -> Path:
    """Write the data and run a recipe beside it in this process, without a report."""
    write_files(base, dataset)
    store = Store(base / "runs")
    return pipeline.run(line_recipe(changes), base, store, "cpu", until, report=False)


def write_recipe(path: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """Write the tree as TOML."""
    lines: list[str] = []
    _write_table(line_tree(changes), "", lines)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_split(path: Path, split: Split, labels: Sequence[str] | None) -> Path:
    """Write a split as tsv: text, text_pair if there is one, label."""
    columns = ["text"] if split.text_pairs is None else ["text", "text_pair"]
    rows = ["\t".join([*columns, "label"])]
    for number, target in enumerate(split.targets):
        texts = [split.texts[number]]
        if split.text_pairs is not None:
            texts.append(split.text_pairs[number])
        if isinstance(target, tuple):
            label = ",".join((labels or ())[index] for index in target)
        else:
            label = str(target) if labels is None else labels[int(target)]
        rows.append("\t".join([*texts, label]))
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def write_files(directory: Path, dataset: Dataset) -> None:
    """Write every split of a data set as NAME.tsv."""
    labels = None if dataset.task == "regression" else dataset.labels
    for split in dataset.splits():
        write_split(directory / f"{split.name}.tsv", split, labels)


def factory_here(*arguments: object) -> Result:
    """The command line in this process; an exception that escapes it fails the test."""
    result = CliRunner().invoke(main, [*map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def error_of(result: Result, code: int) -> str:
    """The message on stderr of a command that failed with the code and printed nothing."""
    assert (result.exit_code, result.stdout) == (code, ""), result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


def python(program: str, *arguments: object, cwd: Path = ROOT) -> str:
    """The stdout of a Python program in a fresh interpreter that must succeed."""
    result = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=cwd,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def clean_environment() -> dict[str, str]:
    """This process's environment without settings of the server."""
    return {key: value for key, value in os.environ.items() if not key.startswith("SERVING_")}


def published(store: Path) -> dict[str, tuple[int, float]]:
    """Inode and time of every published artifact's record: equal means nothing was rebuilt."""
    return {
        file.parent.name: (file.stat().st_ino, file.stat().st_mtime)
        for file in sorted(store.glob("*/artifact.json"))
        if not file.parent.name.endswith(".partial")
    }


def stage_directory(store: Path, stage: str) -> Path:
    """The one published artifact of a stage."""
    (found,) = [
        directory
        for directory in store.glob(f"{stage}-*")
        if not directory.name.endswith(".partial")
    ]
    return found


def _write_table(tree: Mapping[str, Any], prefix: str, lines: list[str]) -> None:
    for key, value in tree.items():
        if not isinstance(value, Mapping):
            lines.append(f"{key} = {json.dumps(value)}")
    for key, value in tree.items():
        if isinstance(value, Mapping):
            lines.append(f"\n[{prefix}{key}]")
            _write_table(value, f"{prefix}{key}.", lines)
