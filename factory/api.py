"""The Python API: the commands as functions, with results a notebook shows as tables."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from factory import pipeline
from factory.bundle.tables import gate_lines, result_table
from factory.planning import StageStatus, make_plan, stage_statuses
from factory.recipe.file import load_recipe
from factory.recipe.recipe import Recipe
from factory.store import Store
from serving.bundle import Manifest, read_manifest

if TYPE_CHECKING:
    from factory.bundle.compare import Comparison
    from factory.evaluation.results import EvaluatedSplit
    from serving.predictor import Predictor


@dataclass(frozen=True, slots=True, repr=False)
class Bundle:
    """A finished bundle: its directory and its manifest.

    Pass it to any function that takes a path. Notebooks show its table of scores.
    """

    directory: Path
    manifest: Manifest

    @classmethod
    def open(cls, directory: Path | str) -> Bundle:
        """Read the manifest of a bundle; its other files are not read.

        Raises:
            BundleError: no valid manifest.
        """
        return cls(Path(directory), read_manifest(Path(directory)))

    @property
    def gate(self) -> list[str]:
        """One line per gate rule, with its result."""
        return gate_lines(self.manifest)

    def predictor(self, threads: int = 1) -> Predictor:
        """Open the bundle to label texts; its files are verified.

        Raises:
            BundleError: a file is missing or changed.
        """
        from serving.predictor import Predictor

        return Predictor.open(self.directory, threads=threads)

    def __fspath__(self) -> str:
        return str(self.directory)

    def __repr__(self) -> str:
        name, version = self.manifest.name, self.manifest.version
        return f"Bundle({name} {version}, {self.directory})\n{result_table(self.manifest)}"

    def _repr_html_(self) -> str:
        lines = result_table(self.manifest).splitlines()
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        caption = f"{self.manifest.name} {self.manifest.version}, {self.directory}"
        return _html_table(rows[0], rows[2:], caption)


@dataclass(frozen=True, slots=True, repr=False)
class Plan:
    """The plan of a run: for each stage whether it would run, and why."""

    stages: tuple[StageStatus, ...]

    def rows(self) -> list[list[str]]:
        """Directory, status and reason of each stage."""
        return [[one.key.directory_name, one.status, one.reason] for one in self.stages]

    def __repr__(self) -> str:
        return "\n".join(f"{name:24} {status:7} {reason}" for name, status, reason in self.rows())

    def _repr_html_(self) -> str:
        return _html_table(["stage", "status", "reason"], self.rows(), "plan")


def run(
    recipe: Path | str | Recipe,
    overrides: Sequence[str] = (),
    *,
    base: Path | str | None = None,
    store: Path | str = "runs",
    device: str = "auto",
) -> Bundle:
    """Make the bundle of a recipe, reusing every stage that is already in the store.

    Args:
        recipe: a file, or a recipe already loaded.
        overrides: `KEY.PATH=VALUE`, for a file.
        base: the folder where the recipe's relative paths start; None: the file's folder, or the
            current one.
        device: auto, cpu or cuda.

    Raises:
        FactoryError: a stage failed; GateFailedError when a gate failed.
    """
    from factory.runtime.environment import prepare_libraries

    parsed, start = _loaded(recipe, overrides, base)
    prepare_libraries()
    return Bundle.open(pipeline.run(parsed, start, Store(Path(store)), device))


def plan(
    recipe: Path | str | Recipe,
    overrides: Sequence[str] = (),
    *,
    base: Path | str | None = None,
    store: Path | str = "runs",
) -> Plan:
    """Plan a run with the same arguments, without running anything.

    Raises:
        FactoryError: the recipe is invalid, or a file or model is missing.
    """
    parsed, start = _loaded(recipe, overrides, base)
    return Plan(tuple(stage_statuses(make_plan(parsed, start), Store(Path(store)))))


def score(
    model: Path | str | Bundle,
    data: Path | str,
    *,
    text: str | Sequence[str] = "text",
    label: str = "label",
    label_separator: str = ",",
    max_length: int | None = None,
) -> EvaluatedSplit:
    """Score a bundle, or a folder in Hugging Face format, on a labelled file.

    Args:
        text: the text column, or the two columns of pairs.
        max_length: in tokens; None: the bundle's own, or 128.

    Raises:
        FactoryError: no model, or data that it cannot be scored on.
    """
    from factory.evaluation.evaluate import score_file
    from factory.runtime.environment import prepare_libraries

    prepare_libraries()
    columns = [text] if isinstance(text, str) else list(text)
    return score_file(Path(model), Path(data), columns, label, max_length, label_separator)


def verify(bundle: Path | str | Bundle) -> Bundle:
    """Check every file of a bundle against its manifest, and that the model runs.

    Raises:
        BundleError: a file is missing or changed, or the model cannot be run.
    """
    opened = Bundle.open(Path(bundle))
    opened.predictor()
    return opened


def compare(
    old: Path | str | Bundle, new: Path | str | Bundle, *, split: str | None = None
) -> Comparison:
    """Compare two bundles on the rows that both runs were evaluated on.

    Args:
        split: dev or test; None: the split of the new bundle's gate.

    Raises:
        ComparisonError: different tasks, or no rows for both.
    """
    from factory.bundle.compare import compare as compare_bundles
    from factory.runtime.environment import prepare_libraries

    prepare_libraries()
    return compare_bundles(Path(old), Path(new), None, split)


def _loaded(
    recipe: Path | str | Recipe, overrides: Sequence[str], base: Path | str | None
) -> tuple[Recipe, Path]:
    if isinstance(recipe, Recipe):
        if overrides:
            raise ValueError("overrides require a recipe file; give its path")
        return recipe, Path(base or ".")
    path = Path(recipe)
    return load_recipe(path, overrides), path.parent if base is None else Path(base)


def _html_table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """Head and rows as an HTML table; every text is escaped."""

    def row(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"

    body = "".join(row(cells, "td") for cells in rows)
    title = f"<caption>{html.escape(caption)}</caption>"
    return f"<table>{title}<thead>{row(head, 'th')}</thead><tbody>{body}</tbody></table>"
