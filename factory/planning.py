"""The stages of one recipe with their fingerprints, computed without running anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from factory.errors import RecipeError
from factory.recipe.recipe import Recipe
from factory.recipe.section import flatten
from factory.stages import STAGES
from factory.stages.sources import Sources, find_sources
from factory.stages.stage import Stage
from factory.store import ArtifactKey, Status, Store

# Messages about stages that a recipe does not have.
MISSING_SECTIONS = {
    "augment": "this recipe has no section [augment]",
    "general": "this recipe has no section [general] with a corpus",
}


@dataclass(frozen=True, slots=True)
class RunPlan:
    """The stages of one run.

    Args:
        stages: those that the recipe needs, in the order they run.
        keys: of their artifacts, by stage.
    """

    recipe: Recipe
    base_directory: Path
    sources: Sources
    stages: tuple[Stage, ...]
    keys: Mapping[str, ArtifactKey]

    @property
    def last(self) -> ArtifactKey:
        """The key of the last stage's artifact."""
        return self.keys[self.stages[-1].name]


@dataclass(frozen=True, slots=True)
class StageStatus:
    """The status of one stage in a plan, and the reason."""

    key: ArtifactKey
    status: Status
    reason: str


def make_plan(
    recipe: Recipe,
    base_directory: Path,
    until: str = "bundle",
    stages: Sequence[Stage] = STAGES,
) -> RunPlan:
    """Find files and models, and fingerprint every stage up to one of them.

    Args:
        base_directory: the recipe's folder; relative paths in the recipe start there.
        until: the last stage; only what it depends on is planned.

    Raises:
        RecipeError, DataError: models or data files are missing, all of them in one error; or the
            recipe does not have the stage `until`.
    """
    wanted = _needed(recipe, until, [stage for stage in stages if stage.wanted(recipe)])
    sources = find_sources(recipe, base_directory, {stage.name for stage in wanted})
    keys: dict[str, ArtifactKey] = {}
    for stage in wanted:
        inputs = {name: keys[name].fingerprint for name in stage.inputs(recipe) if name in keys}
        keys[stage.name] = ArtifactKey(
            stage.name, stage.version, stage.settings(recipe, sources), inputs
        )
    return RunPlan(recipe, base_directory, sources, wanted, keys)


def _needed(recipe: Recipe, until: str, wanted: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stage `until` and all that it depends on, in order."""
    if until not in {stage.name for stage in wanted}:
        problem = MISSING_SECTIONS.get(until, "this recipe does not have the stage")
        raise RecipeError(until, [problem])
    needed = {until}
    for stage in reversed(wanted):
        if stage.name in needed:
            needed.update(stage.inputs(recipe))
    return tuple(stage for stage in wanted if stage.name in needed)


def stage_statuses(plan: RunPlan, store: Store) -> list[StageStatus]:
    """The status of each stage, and the changes since the last run of this recipe."""
    statuses = []
    for stage in plan.stages:
        key = plan.keys[stage.name]
        status = store.status(key)
        reasons = {
            "cached": "nothing changed",
            "resume": "interrupted",
            "run": _changes(key, store, plan.recipe.name),
        }
        statuses.append(StageStatus(key, status, reasons[status]))
    return statuses


def _changes(key: ArtifactKey, store: Store, recipe_name: str) -> str:
    """The differences from this recipe's last artifact of the stage."""
    records = [r for r in store.records(key.stage) if r.get("recipe_name") == recipe_name]
    if not records:
        return "not run yet"
    last = records[0]
    changes = []
    if last.get("stage_version") != key.version:
        changes.append("new version of the stage")
    old, new = flatten(last["settings"]), flatten(key.settings)
    changes += [
        f"{name} {old.get(name)} -> {new.get(name)}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]
    names = {*last["inputs"], *key.inputs}
    changed = sorted(n for n in names if last["inputs"].get(n) != key.inputs.get(n))
    if changed:
        changes.append(f"new {', '.join(changed)}")
    return "; ".join(changes) or "its artifact was deleted"
