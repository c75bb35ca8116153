"""The one pipeline: from a recipe to a published bundle, stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from factory import stages
from factory.building import announcing_build, held, require_same_work
from factory.errors import EXIT_GATE, FactoryError, GateFailedError, first_line
from factory.evaluation import gate
from factory.export.forms import FormName
from factory.graph import Graph, make_graph
from factory.recipe.recipe import Recipe
from factory.runtime import distributed as processes
from factory.runtime.progress import say
from factory.stage_groups import (
    build_augmented,
    build_data,
    build_start,
    build_students,
    build_teacher,
    build_trimmed,
    build_unlabelled,
)
from factory.store import Store


def run(recipe: Recipe, base_directory: Path, store: Store, device: str = "auto") -> Path:
    """Make the bundle of a recipe, reusing every stage that is already there.

    Args:
        base_directory: the recipe's folder; relative paths in the recipe start there.
        device: auto, cpu or cuda; changes speed, not what is made.

    The run's page is written beside the stages, also when a gate said no.

    Returns:
        The bundle's directory.

    Raises:
        FactoryError: a stage failed; GateFailedError when a gate said no.
    """
    graph = make_graph(recipe, base_directory)
    require_same_work(graph.shipping.bundle.fingerprint)
    with held(store):
        if processes.from_first(lambda: store.status(graph.shipping.bundle)) == "cached":
            say("nothing to do: every stage of this recipe is already made")
            bundle = store.load(graph.shipping.bundle).directory
        else:
            bundle = _run_stages(recipe, graph, base_directory, store, device)
        _report(recipe, graph, store)
        return bundle


def _run_stages(
    recipe: Recipe, graph: Graph, base_directory: Path, store: Store, device: str
) -> Path:
    build = announcing_build(store, recipe.name)

    data, dataset = build_data(build, graph.data, recipe, base_directory)
    unlabelled = build_unlabelled(build, graph.unlabelled, recipe, base_directory, dataset)

    teacher = build_teacher(build, graph, recipe, dataset(), device)
    augmented = build_augmented(build, graph, recipe, dataset(), unlabelled, teacher, device)
    start = build_start(build, graph, recipe, base_directory, device)
    models = {
        "teacher": teacher,
        **build_students(
            build, graph, recipe, dataset(), teacher, start, augmented, unlabelled, device
        ),
    }
    evaluation = build(
        graph.evaluate, lambda here: stages.evaluate(here, models, recipe, dataset(), device)
    )
    stages.check_student(evaluation, dataset())
    _gate_1(recipe, evaluation.facts, lambda: _report(recipe, graph, store))

    steps = graph.shipping
    trimmed = build_trimmed(
        build, steps.trim, recipe, dataset(), models["student"], augmented, unlabelled
    )
    student = models["student"] if trimmed is None else trimmed
    onnx = build(
        steps.export, lambda here: stages.export(here, student, evaluation, recipe, dataset())
    )
    plain = onnx.directory / "model.onnx"
    variants: dict[FormName, Path] = {"fp32": plain}
    if steps.quantize is not None:
        made = build(
            steps.quantize, lambda here: stages.quantize(here, plain, student, recipe, dataset())
        )
        variants |= stages.form_files(made, recipe)

    artifacts = {"data": data, **models, "evaluation": evaluation, "onnx": onnx}
    if trimmed is not None:
        artifacts["trimmed"] = trimmed
    try:
        bundle = build(
            graph.shipping.bundle,
            lambda here: stages.bundle(here, graph, recipe, dataset(), artifacts, variants),
        )
    except FactoryError as error:
        if error.exit_code == EXIT_GATE:  # which the others are told by the first, who decides
            processes.from_first(lambda: _clear_failed(recipe, graph, store))
        raise
    return bundle.directory


def _clear_failed(recipe: Recipe, graph: Graph, store: Store) -> None:
    """Keep the measurements of gate 2, discard the forms, and write the report."""
    from factory.report.facts import move_gate_failure

    move_gate_failure(store, graph.shipping.bundle)
    store.discard(graph.shipping.bundle)
    _report(recipe, graph, store)


def _report(recipe: Recipe, graph: Graph, store: Store) -> None:
    """Write the run's page; one that cannot be drawn must not cost what took hours to train."""
    if not processes.current().first:
        return
    from factory.report.page import report_recipe

    try:
        page = report_recipe(recipe, graph.evaluate, graph.shipping.bundle, store)
        say(f"report: {page}")
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        say(f"report: not written ({reason}); `factory report` tries again")


def _gate_1(recipe: Recipe, evaluation: Mapping[str, Any], report: Callable[[], None]) -> None:
    """The cheap gate: the student in torch, before anything is exported.

    Args:
        report: writes the page of a run that ends here.
    """
    from factory.evaluation.evaluate import evaluations_from_facts

    measurements = gate.measure_student(recipe, evaluations_from_facts(evaluation))
    results = gate.check_rules(recipe.gate, recipe.metric, measurements)
    for line in gate.verdict_lines(results):
        say(f"gate 1  {line}")
    tuned = recipe.data.task == "multilabel" and recipe.evaluate.thresholds == "tuned"
    if tuned and recipe.gate.split == "dev":
        say(
            "gate 1  the thresholds were tuned on dev too, which flatters every model's score there"
        )
    try:
        gate.require("gate 1 (student in torch)", results)
    except GateFailedError:  # in all processes; the others wait, as one that ends ends them all
        processes.from_first(report)
        raise
