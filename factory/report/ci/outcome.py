"""How a run ended, as every report for continuous integration sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from factory.errors import GateFailedError
from factory.recipe.recipe import Recipe
from serving.bundle import Manifest, read_manifest

# A rule's facts, as `RuleResult.facts` and the bundle's manifest hold them.
Rule = Mapping[str, Any]

NOT_RULES = ("metric", "positive_label", "split", "predecessor")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a run.

    Args:
        recipe_file: as it was given on the command line.
        recipe: None when it could not be read.
        verdicts: by gate and what it judged, the facts of each rule.
        bundle: the directory, when there is one.
        error: what stopped the run.
    """

    recipe_file: Path
    seconds: float
    recipe: Recipe | None = None
    verdicts: Mapping[str, Sequence[Rule]] = field(default_factory=dict)
    bundle: Path | None = None
    manifest: Manifest | None = None
    error: Exception | None = None

    @property
    def name(self) -> str:
        """The recipe's name, or its file's where it has none that can be read."""
        return self.recipe_file.stem if self.recipe is None else self.recipe.name

    @property
    def gate_failed(self) -> bool:
        """Whether the gate stopped the run."""
        return isinstance(self.error, GateFailedError)

    def unreached(self) -> list[str]:
        """Rules of the recipe that nothing was held against, because the run ended before."""
        if self.recipe is None or self.bundle is not None:
            return []
        judged = {str(rule["rule"]) for rules in self.verdicts.values() for rule in rules}
        wanted = self.recipe.gate.model_dump(exclude_none=True)
        return [name for name in wanted if name not in NOT_RULES and name not in judged]


def published(recipe_file: Path, recipe: Recipe, bundle: Path, seconds: float) -> Outcome:
    """The outcome of a run that made, or found, its bundle.

    Raises:
        BundleError: its manifest cannot be read.
    """
    manifest = read_manifest(bundle)
    verdicts = {f"gate 2 ({manifest.model.variant})": manifest.gate}
    return Outcome(recipe_file, seconds, recipe, verdicts, bundle, manifest)


def stopped(recipe_file: Path, recipe: Recipe | None, error: Exception, seconds: float) -> Outcome:
    """The outcome of a run that an error ended; a failed gate brings its rules."""
    verdicts = error.verdicts if isinstance(error, GateFailedError) else {}
    return Outcome(recipe_file, seconds, recipe, verdicts, error=error)
