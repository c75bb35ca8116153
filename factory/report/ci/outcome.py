"""The outcome of a run, from which all reports for continuous integration are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from factory.errors import GateFailedError
from factory.recipe.recipe import Recipe
from serving.bundle import Manifest, read_manifest

# The facts of a rule, as in `RuleResult.facts` and in the bundle's manifest.
Rule = Mapping[str, Any]

NOT_RULES = ("metric", "positive_label", "split", "predecessor")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a run.

    Args:
        recipe_file: as given on the command line.
        recipe: None if it could not be read.
        verdicts: the facts of each rule, by gate and evaluated model.
        bundle: the published directory, if any.
        error: the error that stopped the run.
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
        """The recipe's name, or the file's name if the recipe could not be read."""
        return self.recipe_file.stem if self.recipe is None else self.recipe.name

    @property
    def gate_failed(self) -> bool:
        """Whether the gate stopped the run."""
        return isinstance(self.error, GateFailedError)

    def not_evaluated(self) -> list[str]:
        """Rules of the recipe that were not evaluated because the run ended before."""
        if self.recipe is None or self.bundle is not None:
            return []
        evaluated = {str(rule["rule"]) for rules in self.verdicts.values() for rule in rules}
        wanted = self.recipe.gate.model_dump(exclude_none=True)
        return [name for name in wanted if name not in NOT_RULES and name not in evaluated]


def published(recipe_file: Path, recipe: Recipe, bundle: Path, seconds: float) -> Outcome:
    """The outcome of a run that published its bundle or found it in the store.

    Raises:
        BundleError: its manifest cannot be read.
    """
    manifest = read_manifest(bundle)
    verdicts = {f"gate 2 ({manifest.model.variant})": manifest.gate}
    return Outcome(recipe_file, seconds, recipe, verdicts, bundle, manifest)


def stopped(recipe_file: Path, recipe: Recipe | None, error: Exception, seconds: float) -> Outcome:
    """The outcome of a run that ended with an error; a failed gate includes its rules."""
    verdicts = error.verdicts if isinstance(error, GateFailedError) else {}
    return Outcome(recipe_file, seconds, recipe, verdicts, error=error)
