"""The one pipeline: from a recipe to a published bundle, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from factory import gate, processes
from factory.building import Build, Facts, announcing_build, held, require_same_work
from factory.corpus.stage import check_corpus
from factory.data.checks import check_batch
from factory.data.dataset import Dataset, read_dataset, write_dataset
from factory.data.stage import load_dataset
from factory.data.unlabelled import load_unlabelled, read_unlabelled, write_unlabelled
from factory.errors import GateFailedError
from factory.general_steps import GeneralSteps, find_general_steps
from factory.graph import Graph, make_graph
from factory.model_source import ModelSource
from factory.progress import say
from factory.recipe import Recipe
from factory.store import Artifact, Store


def run(recipe: Recipe, base_directory: Path, store: Store, device: str = "auto") -> Path:
    """Make the bundle of a recipe, reusing every stage that is already there.

    Args:
        base_directory: the recipe's folder; relative paths in the recipe start there.
        device: auto, cpu or cuda; changes speed, not what is made.

    Returns:
        The bundle's directory.

    Raises:
        FactoryError: a stage failed; GateFailedError when a gate said no.
    """
    graph = make_graph(recipe, base_directory)
    require_same_work(graph.bundle.fingerprint)
    with held(store):
        if processes.from_first(lambda: store.status(graph.bundle)) == "cached":
            say("nothing to do: every stage of this recipe is already made")
            return store.load(graph.bundle).directory
        return _run_stages(recipe, graph, base_directory, store, device)


def run_general(recipe: Recipe, base_directory: Path, store: Store, device: str = "auto") -> Path:
    """Make the general student of a recipe: its corpus and general distillation, nothing else.

    Args:
        base_directory, device: as `run`.

    Returns:
        The student's folder in Hugging Face format; it can be a `student.start`.

    Raises:
        FactoryError: the recipe has no section [general], or a stage failed.
    """
    steps, teacher = find_general_steps(recipe, base_directory)
    require_same_work(steps.general.fingerprint)
    with held(store):
        build = announcing_build(store, recipe.name)
        general = _build_general(build, steps, recipe, teacher, base_directory, device)
    return general.directory / "model"


def _build_general(
    build: Build,
    steps: GeneralSteps,
    recipe: Recipe,
    teacher: ModelSource,
    base_directory: Path,
    device: str,
) -> Artifact:
    assert recipe.general is not None, "checked by the recipe"
    corpus = build(steps.corpus, lambda here: _make_corpus(here, recipe, teacher, base_directory))
    check_corpus(corpus.facts["rows"], recipe.general)
    return build(steps.general, lambda here: _general(here, recipe, teacher, corpus, device))


def _run_stages(
    recipe: Recipe, graph: Graph, base_directory: Path, store: Store, device: str
) -> Path:
    build = announcing_build(store, recipe.name)

    data = build(graph.data, lambda here: _make_data(here, recipe, base_directory))
    dataset = cache(lambda: read_dataset(data.directory))
    check_batch(len(dataset().train), _largest_batch(recipe), "train")
    gate.check_labels(recipe.gate, recipe.metric, dataset().labels)

    unlabelled = None
    if graph.unlabelled is not None:
        unlabelled = build(
            graph.unlabelled,
            lambda here: _make_unlabelled(here, recipe, base_directory, dataset()),
        )

    teacher = build(
        graph.teacher, lambda here: _make_teacher(here, recipe, graph, dataset(), device)
    )
    _check_teacher(teacher, dataset(), recipe)

    start_source = graph.start_source
    if graph.general is not None:
        general = _build_general(
            build, graph.general, recipe, graph.teacher_source, base_directory, device
        )
        folder = general.directory / "model"
        start_source = ModelSource(str(folder), None, f"general:{general.fingerprint}")

    def student_arguments() -> tuple[Any, ...]:
        open_teacher = _open_model(teacher, recipe, device)
        return open_teacher, dataset().train, recipe.student, start_source, recipe.distill

    more = cache(lambda: None if unlabelled is None else read_unlabelled(unlabelled.directory))
    distilled = build(
        graph.distill, lambda here: _distill(here, *student_arguments(), None, more())
    )
    baseline = None
    if graph.baseline is not None:
        rows = 0 if unlabelled is None else int(unlabelled.facts["rows"])
        weighs = recipe.teacher.class_weights == "balanced"
        baseline = build(
            graph.baseline, lambda here: _baseline(here, *student_arguments(), 0, rows, weighs)
        )

    models = {"teacher": teacher, "student": distilled}
    if baseline is not None:
        models["baseline"] = baseline
    evaluation = build(
        graph.evaluate, lambda here: _evaluate(here, models, recipe, dataset(), device)
    )
    _check_student(evaluation, dataset())
    _gate_1(recipe, evaluation.facts)

    onnx = build(graph.export, lambda here: _export(here, distilled, evaluation, recipe, dataset()))
    variants = {"fp32": onnx.directory / "model.onnx"}
    if graph.quantize is not None:
        int8 = build(graph.quantize, lambda here: _quantize(here, variants["fp32"], recipe))
        variants["int8"] = int8.directory / "model.onnx"

    artifacts = {"data": data, **models, "evaluation": evaluation, "onnx": onnx}
    try:
        bundle = build(
            graph.bundle, lambda here: _bundle(here, graph, recipe, dataset(), artifacts, variants)
        )
    except GateFailedError:
        store.discard(graph.bundle)
        raise
    return bundle.directory


def _make_data(here: Path, recipe: Recipe, base_directory: Path) -> Facts:
    from factory.scratch import scratch_directory

    with scratch_directory(here) as scratch:
        dataset, facts = load_dataset(recipe.data, base_directory, scratch, say)
    write_dataset(dataset, here)
    return facts


def _make_unlabelled(here: Path, recipe: Recipe, base_directory: Path, dataset: Dataset) -> Facts:
    from factory.scratch import scratch_directory

    with scratch_directory(here) as scratch:
        rows, facts = load_unlabelled(recipe.data, base_directory, scratch, dataset, say)
    write_unlabelled(rows, here)
    return facts


def _largest_batch(recipe: Recipe) -> int:
    fine_tune = recipe.teacher.batch_size if recipe.teacher.fine_tune else 1
    return max(recipe.distill.batch_size, fine_tune)


def _make_teacher(here: Path, recipe: Recipe, graph: Graph, dataset: Dataset, device: str) -> Facts:
    from factory.classifier import pick_device
    from factory.teacher import make_teacher

    return make_teacher(
        here,
        graph.teacher_source,
        recipe.teacher,
        dataset,
        recipe.data.max_length,
        pick_device(device),
        only_bert=recipe.student.start in ("teacher", "random"),
    )


def _make_corpus(here: Path, recipe: Recipe, teacher: ModelSource, base_directory: Path) -> Facts:
    from factory.corpus.stage import make_corpus

    assert recipe.general is not None, "checked by the recipe"
    return make_corpus(here, recipe.general, teacher, base_directory)


def _general(
    here: Path, recipe: Recipe, source: ModelSource, corpus: Artifact, device: str
) -> Facts:
    from factory.classifier import pick_device
    from factory.corpus.rows import open_rows
    from factory.distill.general import general_distill, load_base_teacher

    assert recipe.general is not None, "checked by the recipe"
    teacher = load_base_teacher(source, recipe.general, pick_device(device))
    return general_distill(here, teacher, open_rows(corpus.directory), recipe)


def _check_teacher(teacher: Artifact, dataset: Dataset, recipe: Recipe) -> None:
    from factory.teacher import check_teacher

    check_teacher(teacher.facts, dataset, recipe.teacher.min_margin)


def _open_model(artifact: Artifact, recipe: Recipe, device: str) -> Any:
    from factory.classifier import load_torch_classifier, pick_device

    directory = artifact.directory / "model"
    return load_torch_classifier(directory, recipe.data.max_length, pick_device(device))


def _distill(here: Path, *arguments: Any) -> Facts:
    from factory.distill.task import distill

    return distill(here, *arguments)


def _baseline(here: Path, *arguments: Any) -> Facts:
    from factory.distill.baseline import train_baseline

    return train_baseline(here, *arguments)


def _evaluate(
    here: Path, models: Mapping[str, Artifact], recipe: Recipe, dataset: Dataset, device: str
) -> Facts:
    """Score every torch model on dev, and on test when there is one."""
    import numpy as np

    from factory.evaluate import evaluate_splits

    facts: Facts = {}
    for name, artifact in models.items():
        model = _open_model(artifact, recipe, device)
        results = evaluate_splits(
            model,
            dataset.splits()[1:],
            dataset.labels,
            recipe.evaluate.thresholds,
            recipe.gate.positive_label,
        )
        for split, result in results.items():
            np.save(here / f"{name}.{split}.npy", result.predicted)
        facts[name] = {split: result.facts() for split, result in results.items()}
    return facts


def _check_student(evaluation: Artifact, dataset: Dataset) -> None:
    from factory.fitness import check_student

    check_student(evaluation.facts["student"]["dev"], dataset)


def _gate_1(recipe: Recipe, evaluation: Mapping[str, Any]) -> None:
    """The cheap gate: the student in torch, before anything is exported."""
    results = gate.check_rules(
        recipe.gate, recipe.metric, gate.measured_student(recipe, evaluation)
    )
    for line in gate.verdict_lines(results):
        say(f"gate 1  {line}")
    tuned = recipe.data.task == "multilabel" and recipe.evaluate.thresholds == "tuned"
    if tuned and recipe.gate.split == "dev":
        say(
            "gate 1  the thresholds were tuned on dev too, which flatters every model's score there"
        )
    gate.require("gate 1 (student in torch)", results)


def _export(
    here: Path, student: Artifact, evaluation: Artifact, recipe: Recipe, dataset: Dataset
) -> Facts:
    from factory.evaluate import thresholds_of
    from factory.export.onnx import export_onnx
    from factory.export.parity import check_agreement, check_parity

    file = here / "model.onnx"
    export_onnx(student.directory / "model", file, recipe.export.opset)
    model = _open_model(student, recipe, "cpu")
    thresholds = thresholds_of(evaluation.facts, "student", dataset.labels)
    atol = recipe.export.atol
    return {
        "largest_difference": check_parity(file, model, atol),
        "dev_rows_agreeing": check_agreement(file, model, dataset.dev, thresholds, atol),
        "size_bytes": file.stat().st_size,
    }


def _quantize(here: Path, source: Path, recipe: Recipe) -> Facts:
    from factory.export.quantize import quantize_int8

    return quantize_int8(source, here / "model.onnx", recipe.quantize.per_channel)


def _bundle(
    here: Path,
    graph: Graph,
    recipe: Recipe,
    dataset: Dataset,
    artifacts: Mapping[str, Artifact],
    variants: Mapping[str, Path],
) -> Facts:
    from factory.shipping import ship

    return ship(here, graph.bundle.fingerprint, recipe, dataset, artifacts, variants)
