"""Everything the page tells about one run, read from its bundle or from what a gate refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory.data.dataset import Task
from factory.errors import FactoryError
from factory.evaluation import gate
from factory.evaluation.evaluate import evaluations_from_facts
from factory.recipe.export import ReportSettings
from factory.recipe.file import parse_recipe
from factory.recipe.recipe import Recipe
from factory.report.run_files import StageFiles, find_stages, stage_of
from factory.report.tables import TORCH_MODELS
from factory.runtime.environment import library_versions, machine_facts
from factory.store import ARTIFACT_FILE, ArtifactKey, Store, read_json
from serving.bundle import read_manifest

GATE_1 = "Gate 1: the student in torch"
GATE_2 = "Gate 2: {variant}, scored through the server's own code"


@dataclass(frozen=True, slots=True)
class GateResult:
    """One gate's rules as they were decided, each a `RuleResult` as JSON data."""

    title: str
    rules: Sequence[Mapping[str, Any]]

    @property
    def passed(self) -> bool:
        """Whether every rule was kept."""
        return all(rule["passed"] for rule in self.rules)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """One run, finished or refused.

    Args:
        recipe: the resolved recipe as JSON data.
        scores: by model, split and metric, as in a bundle's manifest.
        measurements: as in a bundle's manifest; of a run that gate 1 stopped, the sizes alone.
        served: the form that ships; None where a gate said no.
        stages: those still in the store, the first made first.
        bundle: the directory that ships, when there is one.
    """

    name: str
    fingerprint: str
    task: Task
    labels: tuple[str, ...]
    text_pair: bool
    max_length: int
    recipe: Mapping[str, Any]
    metric: str
    split: str
    rows: Mapping[str, int]
    scores: Mapping[str, Any]
    measurements: Mapping[str, Any]
    gates: Sequence[GateResult]
    served: str | None
    stages: list[StageFiles]
    versions: Mapping[str, Any]
    bundle: Path | None

    @property
    def texts(self) -> int:
        """How many texts the recipe lets the page show."""
        shown: int = self.recipe.get("report", {}).get("texts", ReportSettings().texts)
        return shown

    @property
    def passed(self) -> bool:
        """Whether the run has something to ship."""
        return self.served is not None


def bundle_facts(bundle: Path) -> RunFacts:
    """The run behind a bundle; stages that are not beside it are left out.

    Raises:
        BundleError: no readable manifest.
    """
    manifest = read_manifest(bundle)
    stages: list[StageFiles] = []
    record: Mapping[str, Any] = {}
    if (bundle / ARTIFACT_FILE).is_file():
        record = read_json(bundle / ARTIFACT_FILE)
        stages = find_stages(bundle.resolve().parent, record["inputs"])
        stages.append(StageFiles("bundle", bundle, record))
    recipe = _recipe(manifest.recipe)
    served = GateResult(GATE_2.format(variant=manifest.model.variant), manifest.gate)
    evaluation = stage_of(stages, "evaluate")
    first = [] if recipe is None or evaluation is None else [_gate_1(recipe, evaluation.facts)]
    return RunFacts(
        name=manifest.name,
        fingerprint=record.get("fingerprint", manifest.version),
        task=manifest.task,
        labels=tuple(manifest.labels),
        text_pair=manifest.text_pair,
        max_length=manifest.max_length,
        recipe=manifest.recipe,
        metric=_metric(manifest.recipe, recipe, manifest.scores),
        split=manifest.recipe["gate"]["split"],
        rows=manifest.data.get("rows", {}),
        scores=manifest.scores,
        measurements=manifest.measurements,
        gates=[*first, served],
        served=manifest.model.variant,
        stages=stages,
        versions=manifest.versions,
        bundle=bundle,
    )


def refused_facts(
    recipe: Recipe,
    bundle: ArtifactKey,
    evaluate: ArtifactKey,
    store: Store,
    refusal: Mapping[str, Any] | None,
) -> RunFacts:
    """A run that a gate stopped.

    Args:
        refusal: what gate 2 measured, with the keys scores, measurements and rules by variant;
            None where gate 1 said no.

    Raises:
        StoreError: the evaluation it was judged by is not there.
    """
    evaluation = store.load(evaluate)
    key = bundle if refusal is not None else evaluate
    stages = find_stages(store.root, {**key.inputs, "evaluate": evaluate.fingerprint})
    data = stage_of(stages, "data")
    facts: Mapping[str, Any] = {} if data is None else data.facts
    gates = [_gate_1(recipe, evaluation.facts)]
    scores = torch_scores(evaluation.facts)
    measurements: Mapping[str, Any] = {"size_bytes": model_sizes(stages)}
    if refusal is not None:
        scores, measurements = refusal["scores"], refusal["measurements"]
        gates += [
            GateResult(GATE_2.format(variant=variant), rules)
            for variant, rules in refusal["rules"].items()
        ]
    return RunFacts(
        name=recipe.name,
        fingerprint=bundle.fingerprint,
        task=recipe.data.task,
        labels=tuple(facts.get("labels", ())),
        text_pair=isinstance(recipe.data.text, list),
        max_length=recipe.data.max_length,
        recipe=recipe.model_dump(mode="json"),
        metric=recipe.metric,
        split=recipe.gate.split,
        rows=facts.get("rows", {}),
        scores=scores,
        measurements={"machine": machine_facts(), **measurements},
        gates=gates,
        served=None,
        stages=stages,
        versions=library_versions(),
        bundle=None,
    )


def torch_scores(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The evaluate stage's scores as a manifest has them."""
    return {
        model: {
            split: {"rows": facts["rows"], **facts["scores"]} for split, facts in splits.items()
        }
        for model, splits in evaluation.items()
    }


def model_sizes(stages: list[StageFiles]) -> dict[str, int]:
    """Bytes of each torch model's weights."""
    sizes = {}
    for stage in stages:
        weights = stage.directory / "model" / "model.safetensors"
        if stage.role in TORCH_MODELS and weights.is_file():
            sizes[stage.role] = weights.stat().st_size
    return sizes


def _gate_1(recipe: Recipe, evaluation: Mapping[str, Any]) -> GateResult:
    measurements = gate.measure_student(recipe, evaluations_from_facts(evaluation))
    results = gate.check_rules(recipe.gate, recipe.metric, measurements)
    return GateResult(GATE_1, [result.to_facts() for result in results])


def _recipe(resolved: Mapping[str, Any]) -> Recipe | None:
    """The recipe of a bundle; None where an earlier or later version wrote other settings."""
    try:
        return parse_recipe(_without_none(resolved))
    except FactoryError:
        return None


def _without_none(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, Mapping) else value
        for key, value in tree.items()
        if value is not None
    }


def _metric(resolved: Mapping[str, Any], recipe: Recipe | None, scores: Mapping[str, Any]) -> str:
    if recipe is not None:
        return recipe.metric
    split = resolved["gate"]["split"]
    named: str | None = resolved["gate"].get("metric")
    return named or next(name for name in scores["teacher"][split] if name != "rows")
