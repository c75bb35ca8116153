"""The facts of one run, read from its bundle, or from the stages before the gate that it failed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from factory.bundle.measurements import (
    GATE_FAILURE_FILE,
    TORCH_MODELS,
    RunMeasurements,
    load_gate_failure,
    read_measurements,
    torch_scores,
    weights_size,
)
from factory.evaluation import gate
from factory.evaluation.gate import RuleResult
from factory.evaluation.metrics import Score
from factory.evaluation.results import Evaluations, evaluations_from_facts
from factory.recipe.file import parse_recipe
from factory.recipe.recipe import Recipe
from factory.runtime.environment import library_versions, machine_facts
from factory.store import ARTIFACT_FILE, ArtifactKey, Store, directory_name, read_json
from serving.bundle import read_manifest

GATE_1 = "Gate 1: the student in torch"
GATE_2 = "Gate 2: {form}, scored through the server's own code"


@dataclass(frozen=True, slots=True)
class StageFiles:
    """One finished stage: the model that it made, else its name; its directory; its record."""

    role: str
    directory: Path
    record: Mapping[str, Any]

    @property
    def facts(self) -> Mapping[str, Any]:
        """The facts that the stage recorded."""
        facts: Mapping[str, Any] = self.record["facts"]
        return facts


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberRange:
    """The target values of one split of a regression."""

    min: float
    mean: float
    max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """The facts of the data stage.

    Args:
        rows, duplicates_within: by split.
        duplicates_across: by "SPLIT/SPLIT", the inputs that are in both.
        label_balance: rows by split and label; empty for regression.
        target_range: by split; empty unless the task is regression.
    """

    rows: Mapping[str, int]
    labels: tuple[str, ...]
    duplicates_within: Mapping[str, int]
    duplicates_across: Mapping[str, int]
    notices: Sequence[str] = ()
    label_balance: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    target_range: Mapping[str, NumberRange] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GateResult:
    """The results of one gate."""

    title: str
    rules: Sequence[RuleResult]

    @property
    def passed(self) -> bool:
        """Whether every rule passed."""
        return all(rule.passed for rule in self.rules)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """One run that passed or failed its gates.

    Args:
        rows: by split.
        measurements: of a run that failed gate 1, only scores, sizes and parameters.
        served: the form that ships; None when a gate failed.
        evaluations: of the torch models; None when the stage is no longer in the store.
        data: None when the data stage is no longer in the store.
        stages: the stages that are still in the store, in the order in which they were made.
        bundle: the directory of the bundle, if there is one.
    """

    fingerprint: str
    recipe: Recipe
    labels: Sequence[str]
    rows: Mapping[str, int]
    measurements: RunMeasurements
    gates: Sequence[GateResult]
    served: str | None
    evaluations: Evaluations | None
    data: DataFacts | None
    stages: Sequence[StageFiles]
    versions: Mapping[str, Any]
    bundle: Path | None

    @property
    def task(self) -> str:
        """The task of the data."""
        return self.recipe.data.task

    @property
    def metric(self) -> str:
        """The gate's metric."""
        return self.recipe.metric

    @property
    def split(self) -> str:
        """The gate's split."""
        return self.recipe.gate.split

    @property
    def passed(self) -> bool:
        """Whether the run has a bundle to ship."""
        return self.served is not None

    def stage(self, role: str) -> StageFiles | None:
        """The stage with a role, if it is still in the store."""
        return next((stage for stage in self.stages if stage.role == role), None)

    def score(self, model: str) -> Score:
        """A model's score in the gate's metric on the gate's split."""
        return self.measurements.scores[model][self.split][self.metric]


def bundle_facts(bundle: Path) -> RunFacts:
    """The run that made a bundle; stages that are not in the same store are left out.

    Raises:
        BundleError: no readable manifest.
        RecipeError: another version of the factory wrote the recipe.
    """
    manifest = read_manifest(bundle)
    recipe = parse_recipe(_without_none(manifest.recipe))
    stages: list[StageFiles] = []
    fingerprint = manifest.version
    if (bundle / ARTIFACT_FILE).is_file():
        record = read_json(bundle / ARTIFACT_FILE)
        fingerprint = record["fingerprint"]
        stages = _find_stages(bundle.resolve().parent, record["inputs"])
        stages.append(StageFiles("bundle", bundle, record))
    evaluations = next(
        (evaluations_from_facts(one.facts) for one in stages if one.role == "evaluate"), None
    )
    gate_2 = GateResult(
        GATE_2.format(form=manifest.model.form), msgspec.convert(manifest.gate, list[RuleResult])
    )
    return RunFacts(
        fingerprint=fingerprint,
        recipe=recipe,
        labels=manifest.labels,
        rows=manifest.data.get("rows", {}),
        measurements=read_measurements(manifest),
        gates=[*([] if evaluations is None else [_gate_1(recipe, evaluations)]), gate_2],
        served=manifest.model.form,
        evaluations=evaluations,
        data=_data_facts(stages),
        stages=stages,
        versions=manifest.versions,
        bundle=bundle,
    )


def failed_facts(
    recipe: Recipe, evaluate: ArtifactKey, bundle: ArtifactKey, store: Store
) -> RunFacts:
    """A run that failed a gate.

    Args:
        evaluate, bundle: the stages that the gates belong to.

    Raises:
        StoreError: the evaluation is not in the store.
    """
    measurements = load_gate_failure(report_folder(store, bundle))
    last = evaluate if measurements is None else bundle
    stages = _find_stages(store.root, {**last.inputs, "evaluate": evaluate.fingerprint})
    evaluations = evaluations_from_facts(store.load(evaluate).facts)
    if measurements is None:
        sizes = {
            one.role: weights_size(one.directory) for one in stages if one.role in TORCH_MODELS
        }
        measurements = RunMeasurements(
            scores=torch_scores(evaluations),
            size_bytes={model: size for model, (size, _) in sizes.items()},
            parameters={model: count for model, (_, count) in sizes.items()},
            machine=machine_facts(),
        )
    data = _data_facts(stages)
    return RunFacts(
        fingerprint=bundle.fingerprint,
        recipe=recipe,
        labels=() if data is None else data.labels,
        rows={} if data is None else data.rows,
        measurements=measurements,
        gates=[
            _gate_1(recipe, evaluations),
            *(
                GateResult(GATE_2.format(form=form), rules)
                for form, rules in measurements.verdicts.items()
            ),
        ],
        served=None,
        evaluations=evaluations,
        data=data,
        stages=stages,
        versions=library_versions(),
        bundle=None,
    )


def report_folder(store: Store, bundle: ArtifactKey) -> Path:
    """The folder of the report of the run that makes `bundle`."""
    return store.root / directory_name("report", bundle.fingerprint)


def move_gate_failure(store: Store, bundle: ArtifactKey) -> None:
    """Move the measurements of a failed gate 2 out of the directory that is discarded."""
    saved = store.partial(bundle) / GATE_FAILURE_FILE
    if saved.is_file():
        folder = report_folder(store, bundle)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.move(saved, folder / GATE_FAILURE_FILE)


def _find_stages(store: Path, inputs: Mapping[str, str]) -> list[StageFiles]:
    """The stages with these fingerprints and their inputs, in the order in which they were made.

    Stages that are no longer in the store are left out: a bundle may have been copied elsewhere.

    Args:
        inputs: fingerprint by stage, as in the record of the stage that read them.
    """
    records: dict[Path, Mapping[str, Any]] = {}

    def find(inputs: Mapping[str, str]) -> None:
        for stage, fingerprint in inputs.items():
            directory = store / directory_name(stage, fingerprint)
            if directory in records or not (directory / ARTIFACT_FILE).is_file():
                continue
            record = read_json(directory / ARTIFACT_FILE)
            if record.get("fingerprint") == fingerprint:
                find(record["inputs"])
                records[directory] = record

    find(inputs)
    pruned = any(record["stage"] == "prune" for record in records.values())
    roles = {"distill": "unpruned" if pruned else "student", "prune": "student"}
    return [
        StageFiles(roles.get(record["stage"], record["stage"]), directory, record)
        for directory, record in records.items()
    ]


def _gate_1(recipe: Recipe, evaluations: Evaluations) -> GateResult:
    measurements = gate.measure_student(recipe, evaluations)
    return GateResult(GATE_1, gate.check_rules(recipe.gate, recipe.metric, measurements))


def _data_facts(stages: Sequence[StageFiles]) -> DataFacts | None:
    facts = [stage.facts for stage in stages if stage.role == "data"]
    return msgspec.convert(facts[0], DataFacts) if facts else None


def _without_none(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe without unset keys, which TOML does not have."""
    return {
        key: _without_none(value) if isinstance(value, Mapping) else value
        for key, value in tree.items()
        if value is not None
    }
