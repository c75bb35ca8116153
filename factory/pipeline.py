"""The pipeline: from a recipe to a published bundle, stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from factory.errors import EXIT_GATE, FactoryError, first_line
from factory.planning import RunPlan, make_plan
from factory.recipe.recipe import Recipe
from factory.runtime import distributed
from factory.runtime.progress import say
from factory.stages import STAGES
from factory.stages.build import build_stage, check_same_fingerprint, lock_store
from factory.stages.stage import Run, Stage
from factory.store import Store


def run(
    recipe: Recipe,
    base_directory: Path,
    store: Store,
    device: str = "auto",
    until: str = "bundle",
    stages: Sequence[Stage] = STAGES,
    *,
    report: bool = True,
) -> Path:
    """Make the bundle of a recipe, or the artifact of an earlier stage.

    Artifacts that are already in the store are reused.

    Args:
        base_directory: the recipe's folder; relative paths in the recipe start there.
        device: auto, cpu or cuda; changes speed, not the result.
        until: the last stage; only what it depends on is made.
        report: write the report of a run to the bundle, also if a gate fails.

    Returns:
        The directory of the last stage's artifact.

    Raises:
        FactoryError: a stage failed; GateFailedError when a gate failed.
    """
    plan = make_plan(recipe, base_directory, until, stages)
    check_same_fingerprint(plan.last.fingerprint)
    with lock_store(store):
        if distributed.on_main_process(lambda: store.status(plan.last)) == "cached":
            say("nothing to do: every stage of this recipe is cached")
        else:
            try:
                _run_stages(plan, store, device)
            except FactoryError as error:
                if error.exit_code == EXIT_GATE:  # on every rank: the others wait for rank 0
                    distributed.on_main_process(lambda: _close_failed_run(plan, store, report))
                raise
        if report and until == "bundle" and distributed.current().is_main:
            _write_report(plan, store)
    return store.load(plan.last).directory


def preview_augmentation(
    recipe: Recipe,
    base_directory: Path,
    store: Store,
    count: int,
    device: str = "auto",
    *,
    colours: bool = False,
) -> list[str]:
    """Lines with training rows before and after augmentation; nothing is written.

    Args:
        base_directory, device: as `run`.
        count: number of rows.
        colours: also highlight changed words.

    Raises:
        FactoryError: the recipe has no section [augment], or a stage failed.
    """
    from factory.augment.preview import preview_lines
    from factory.stages.augment import open_augment_proposers

    plan = make_plan(recipe, base_directory, "augment")
    assert recipe.augment is not None, "the plan ends with its stage"
    with lock_store(store):
        run = _run_stages(replace(plan, stages=plan.stages[:-1]), store, device)
        proposers = open_augment_proposers(run)
        return preview_lines(run.dataset.train, recipe.augment, proposers, count, colours=colours)


def _run_stages(plan: RunPlan, store: Store, device: str) -> Run:
    run = Run(plan.recipe, plan.base_directory, plan.sources, device, plan.keys)
    for stage in plan.stages:
        run.artifacts[stage.name] = build_stage(store, stage, run)
        stage.check(run)
    return run


def _close_failed_run(plan: RunPlan, store: Store, report: bool) -> None:
    """Keep the measurements of gate 2, discard the bundle, and write the report."""
    from factory.report.facts import move_gate_failure

    move_gate_failure(store, plan.last)
    store.discard(plan.last)
    if report:
        _write_report(plan, store)


def _write_report(plan: RunPlan, store: Store) -> None:
    """Write the report; an error is only printed, because the trained models are finished."""
    from factory.report.page import report_recipe

    try:
        say(f"report: {report_recipe(plan, store)}")
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        say(f"report: not written ({reason}); run `factory report` to try again")
