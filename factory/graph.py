"""The stages of one recipe with their fingerprints, computed without running anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from factory.augment_steps import (
    AugmentSources,
    AugmentSteps,
    find_augment_sources,
    make_augment_steps,
)
from factory.data.corpus.reading import corpus_identity
from factory.data.source import source_identity, unlabelled_identity
from factory.errors import ProblemsError, RecipeError
from factory.evaluation.predecessor import Predecessor, find_predecessor
from factory.general_steps import GeneralSteps, make_general_steps
from factory.models.source import ModelSource, find_model
from factory.recipe.export import SEVEN_BIT_HARDWARE
from factory.recipe.recipe import Recipe
from factory.shipping_steps import ShippingSteps, make_shipping_steps
from factory.store import Status, Step, Store

# Raised by hand when a stage's code makes something else from the same inputs.
DATA_VERSION = 1
UNLABELLED_VERSION = 1
TEACHER_VERSION = 1
MULTILABEL_VERSION = 2  # of teachers of this task
DISTILL_VERSION = 3
PRUNE_VERSION = 1
ROUND_VERSION = 1
BASELINE_VERSION = 4
EVALUATE_VERSION = 3

# These decide the unlabelled stage and no other: adding such text must not cost a teacher.
UNLABELLED_KEYS = ("unlabelled", "unlabelled_split", "unlabelled_limit")

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Graph:
    """Every stage of a recipe; what it does not need is None."""

    data: Step
    unlabelled: Step | None
    teacher: Step
    augmentation: AugmentSteps | None
    general: GeneralSteps | None
    distill: Step
    prune: Step | None
    round: Step | None
    baseline: Step | None
    evaluate: Step
    shipping: ShippingSteps
    teacher_source: ModelSource
    start_source: ModelSource | None
    predecessor: Predecessor | None

    def steps(self) -> list[Step]:
        """The stages in the order they run."""
        stages = (
            self.data,
            self.unlabelled,
            self.teacher,
            *(self.augmentation.steps() if self.augmentation is not None else ()),
            *(self.general.steps() if self.general is not None else ()),
            self.distill,
            self.prune,
            self.round,
            self.baseline,
            self.evaluate,
            *self.shipping.steps(),
        )
        return [step for step in stages if step is not None]


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """What a run would do with one stage, and why."""

    step: Step
    status: Status
    reason: str


def make_graph(recipe: Recipe, base_directory: Path) -> Graph:
    """Resolve files and models and fingerprint every stage.

    Args:
        base_directory: the recipe's folder; relative paths in the recipe start there.

    Raises:
        RecipeError, DataError: a model or data file that is not there; all of them together.
    """
    sources = _find_sources(recipe, base_directory)
    sections = recipe.model_dump(mode="json")
    data = Step(
        "data",
        DATA_VERSION,
        {"data": _data_settings(sections["data"]), "source": sources.data},
        {},
    )
    unlabelled = _unlabelled_step(recipe, sources, data)
    teacher = _teacher_step(recipe, sections, sources, data)
    inputs = {"data": data.fingerprint, "teacher": teacher.fingerprint}
    if unlabelled is not None:
        inputs["unlabelled"] = unlabelled.fingerprint
    augmentation = None
    if sources.augment is not None:
        augmentation = make_augment_steps(
            recipe, sources.augment, sources.teacher, data, unlabelled, teacher
        )
        inputs["augmented"] = augmentation.augment.fingerprint
    general = None
    if sources.corpus is not None:
        general = make_general_steps(recipe, sources.teacher, sources.corpus)
        inputs["general"] = general.general.fingerprint
    distill, baseline = _student_steps(recipe, sections, sources, inputs)
    prune = _prune_step(sections["prune"], distill, inputs)
    rounding = _round_step(recipe, sections["quantize"], prune or distill, inputs)
    models = {
        "data": data.fingerprint,
        "teacher": teacher.fingerprint,
        "student": (rounding or prune or distill).fingerprint,
    }
    if prune is not None:
        models["unpruned"] = distill.fingerprint
    if baseline is not None:
        models["baseline"] = baseline.fingerprint
    evaluate = _evaluate_step(recipe, sections, models)
    texts = {name: made for name, made in inputs.items() if name in ("unlabelled", "augmented")}
    old = sources.predecessor
    shipping = make_shipping_steps(
        recipe, models, evaluate, texts, None if old is None else old.identity
    )
    return Graph(
        data=data,
        unlabelled=unlabelled,
        teacher=teacher,
        augmentation=augmentation,
        general=general,
        distill=distill,
        prune=prune,
        round=rounding,
        baseline=baseline,
        evaluate=evaluate,
        shipping=shipping,
        teacher_source=sources.teacher,
        start_source=sources.start,
        predecessor=sources.predecessor,
    )


@dataclass(frozen=True, slots=True)
class _Sources:
    teacher: ModelSource
    start: ModelSource | None
    data: Mapping[str, object]
    unlabelled: Mapping[str, object] | None
    corpus: Mapping[str, object] | None
    augment: AugmentSources | None
    predecessor: Predecessor | None


def _find_sources(recipe: Recipe, base_directory: Path) -> _Sources:
    """Look for models and data; whatever is not there is told in one error."""
    problems: list[ProblemsError] = []

    def found(find: Callable[[], Found]) -> Found | None:
        try:
            return find()
        except ProblemsError as error:
            problems.append(error)
            return None

    name, revision = recipe.teacher.model, recipe.teacher.revision
    teacher = found(lambda: find_model(name, base_directory, "teacher.model", revision))
    start = found(lambda: find_start(recipe, base_directory))
    data = found(lambda: source_identity(recipe.data, base_directory))
    unlabelled = found(lambda: unlabelled_identity(recipe.data, base_directory))
    corpus = found(lambda: _find_corpus(recipe, base_directory))
    augment = None
    if teacher is not None:
        augment = found(lambda: find_augment_sources(recipe, base_directory, teacher))
    predecessor = found(lambda: find_predecessor(recipe, base_directory))
    if len(problems) > 1:
        lines = [f"{error.headline}: {line}" for error in problems for line in error.problems]
        raise RecipeError("the recipe names what is not there", lines)
    if problems or teacher is None or data is None:
        raise problems[0]
    return _Sources(teacher, start, data, unlabelled, corpus, augment, predecessor)


def _find_corpus(recipe: Recipe, base_directory: Path) -> Mapping[str, object] | None:
    """The identity of the corpus behind a general student, when the recipe starts from one."""
    if recipe.general is None or recipe.student.start != "general":
        return None
    return corpus_identity(recipe.general, base_directory)


def _unlabelled_step(recipe: Recipe, sources: _Sources, data: Step) -> Step | None:
    """The text without labels; the columns to read and the seed are in the data step already."""
    if sources.unlabelled is None:
        return None
    settings = {
        "data": {"unlabelled_limit": recipe.data.unlabelled_limit},
        "source": sources.unlabelled,
    }
    return Step("unlabelled", UNLABELLED_VERSION, settings, {"data": data.fingerprint})


def _teacher_step(
    recipe: Recipe, sections: Mapping[str, Any], sources: _Sources, data: Step
) -> Step:
    settings: dict[str, Any] = {
        "teacher": _teacher_settings(sections["teacher"]),
        "data": {"max_length": recipe.data.max_length},
        "model": sources.teacher.identity,
    }
    if recipe.data.task == "multilabel":
        settings["multilabel_version"] = MULTILABEL_VERSION
    return Step("teacher", TEACHER_VERSION, settings, {"data": data.fingerprint})


def _evaluate_step(recipe: Recipe, sections: Mapping[str, Any], models: Mapping[str, str]) -> Step:
    settings: dict[str, Any] = {"data": {"max_length": recipe.data.max_length}}
    if recipe.data.task == "multilabel":
        settings["evaluate"] = sections["evaluate"]
        if recipe.evaluate.thresholds == "tuned":
            settings["tuned_for"] = recipe.tuning_goal
    if recipe.gate.positive_label is not None:
        settings["gate"] = {"positive_label": recipe.gate.positive_label}
    return Step("evaluate", EVALUATE_VERSION, settings, models)


def _data_settings(section: Mapping[str, Any]) -> dict[str, Any]:
    """How the splits are read; defaults added later leave old fingerprints alone."""
    settings = _without(section, "max_length", "train", "dev", "test", *UNLABELLED_KEYS)
    if section["task"] != "multilabel":
        settings = _without(settings, "label_separator")
    return settings if section["allow_empty"] else _without(settings, "allow_empty")


def _teacher_settings(section: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the teacher's weights; a default added later leaves old fingerprints alone."""
    settings = _without(section, "model", "min_margin")
    return _without(settings, "class_weights") if section["class_weights"] == "none" else settings


def _distill_settings(section: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the student's weights; defaults added later leave old fingerprints alone."""
    settings = _without(section, "baseline", "baseline_learning_rate")
    added = {"unlabelled_phases": "both", "augmented_weight": 1.0}
    return {key: value for key, value in settings.items() if added.get(key) != value}


def _student_steps(
    recipe: Recipe,
    sections: Mapping[str, Any],
    sources: _Sources,
    inputs: Mapping[str, str],
) -> tuple[Step, Step | None]:
    """The distilled student and, when the recipe wants it, the undistilled one."""
    student = sections["student"]
    settings = {
        "student": _without(student, "start") if sources.start else student,
        "distill": _distill_settings(sections["distill"]),
        "data": {"max_length": recipe.data.max_length},
        "start": sources.start.identity if sources.start else None,
    }
    distill = Step("distill", DISTILL_VERSION, settings, inputs)
    if recipe.distill.baseline == "off":
        return distill, None
    baseline_settings = {
        **settings,
        "baseline": recipe.distill.baseline,
        "baseline_learning_rate": recipe.distill.baseline_learning_rate,
    }
    return distill, Step("baseline", BASELINE_VERSION, baseline_settings, inputs)


def _prune_step(
    section: Mapping[str, Any] | None, distill: Step, inputs: Mapping[str, str]
) -> Step | None:
    """The student with fewer neurons, when the recipe asks for it; `distill` says how it learns."""
    if section is None:
        return None
    of_lesson = {name: made for name, made in inputs.items() if name != "general"}
    made_from = {**of_lesson, "distilled": distill.fingerprint}
    return Step("prune", PRUNE_VERSION, {"prune": section}, made_from)


def _round_step(
    recipe: Recipe, section: Mapping[str, Any], distilled: Step, inputs: Mapping[str, str]
) -> Step | None:
    """The student trained with rounded numbers, when the recipe asks for it."""
    if not section["training_epochs"]:
        return None
    of_lesson = {name: made for name, made in inputs.items() if name != "general"}
    settings = {
        "quantize": _without(section, "variants", "per_channel"),
        "seven_bits": recipe.target.hardware in SEVEN_BIT_HARDWARE,
        "export": {"opset": recipe.export.opset, "first_token": recipe.export.first_token},
    }
    return Step("round", ROUND_VERSION, settings, {**of_lesson, "distilled": distilled.fingerprint})


def find_start(recipe: Recipe, base_directory: Path) -> ModelSource | None:
    """The checkpoint the student starts from, or None for the starts that need none.

    Raises:
        RecipeError: the checkpoint is not there.
    """
    start = recipe.student.start
    if start in ("teacher", "random", "general"):
        return None
    return find_model(start, base_directory, "student.start", recipe.student.revision)


def plan(graph: Graph, store: Store, recipe_name: str) -> list[PlannedStep]:
    """What a run would do with each stage, and what changed since this recipe last ran."""
    planned = []
    for step in graph.steps():
        status = store.status(step)
        reasons = {
            "cached": "nothing changed",
            "resume": "an interrupted run left its work",
            "run": _why(step, store, recipe_name),
        }
        planned.append(PlannedStep(step, status, reasons[status]))
    return planned


def _why(step: Step, store: Store, recipe_name: str) -> str:
    """The first differences from this recipe's last artifact of the stage."""
    records = [r for r in store.records(step.stage) if r.get("recipe_name") == recipe_name]
    if not records:
        return "never made"
    last = records[0]
    changes = []
    if last.get("stage_version") != step.version:
        changes.append("the stage's code changed")
    old, new = flatten(last["settings"]), flatten(step.settings)
    changes += [
        f"{key} {old.get(key)} -> {new.get(key)}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]
    inputs = {*last["inputs"], *step.inputs}
    changed = sorted(n for n in inputs if last["inputs"].get(n) != step.inputs.get(n))
    if changed:
        changes.append(f"new {', '.join(changed)}")
    return "; ".join(changes) or "its artifact was removed"


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one mapping with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _without(section: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key not in names}
