"""Stage bundle: measure every form as it is served, apply gate 2, ship the first that passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msgspec import structs

from factory.bundle.assemble import (
    BundleParts,
    candidate_file,
    copy_files,
    make_manifest,
    open_candidate,
    ship_only,
    write_max_length,
)
from factory.bundle.measurements import (
    RunMeasurements,
    save_gate_failure,
    torch_scores,
    weights_size,
)
from factory.bundle.model_card import card_sources, model_card
from factory.data.dataset import Dataset
from factory.errors import GateFailedError
from factory.evaluation import gate
from factory.evaluation.evaluate import agreement, evaluate
from factory.evaluation.latency import Inputs, Latency, Runner, inputs_of_length, measure_latency
from factory.evaluation.predecessor import Predecessor, PredecessorScores, score_predecessor
from factory.evaluation.results import EvaluatedSplit, Evaluations, evaluations_from_facts
from factory.evaluation.significance import Difference
from factory.export.forms import FormName, Hardware
from factory.models.classifier import load_torch_classifier
from factory.recipe.export import QuantizeSettings, TargetSettings
from factory.recipe.recipe import Recipe
from factory.runtime.environment import machine_facts
from factory.runtime.progress import say
from factory.store import Artifact, ArtifactKey
from serving.bundle import describe_files, write_manifest
from serving.predictor import Predictor

VERSION_DIGITS = 16


@dataclass(frozen=True, slots=True)
class MeasuredForms:
    """The forms of a bundle, measured through the server's own code.

    Args:
        evaluations: by form and split.
        size_bytes: of each form's file.
        latencies: of each form, and of teacher and student in torch.
    """

    evaluations: Mapping[FormName, Mapping[str, EvaluatedSplit]]
    size_bytes: Mapping[FormName, int]
    latencies: Mapping[str, Latency]


def ship(
    output: Path,
    key: ArtifactKey,
    recipe: Recipe,
    dataset: Dataset,
    models: Mapping[str, Artifact],
    artifacts: Mapping[str, Artifact],
    files: Mapping[FormName, Path],
    predecessor: Predecessor | None,
) -> dict[str, Any]:
    """Assemble the bundle in `output`; gate 2 chooses the form that it serves.

    Args:
        key: of the bundle.
        models: the scored models: teacher, student and, if made, baseline and unpruned.
        artifacts: by stage.
        files: ONNX file by form; fp32 is always among them.

    Returns:
        The facts of the stage: the served form, its gate results, and the size of its file.

    Raises:
        GateFailedError: no form of the recipe passes every rule; the measurements are saved in
            `output`.
    """
    trim, evaluate_facts = artifacts.get("trim"), artifacts["evaluate"].facts
    copy_files(output, (trim or models["student"]).directory / "model", files)
    write_max_length(output, recipe.data.max_length)
    evaluations = evaluations_from_facts(evaluate_facts)
    thresholds = evaluations["student"]["dev"].thresholds
    version = key.fingerprint[:VERSION_DIGITS]
    parts = BundleParts(recipe, version, dataset, key.inputs, thresholds)
    forms = measure_forms(output, parts, models, list(files))
    measurements = _run_measurements(recipe, evaluations, models, trim, forms)
    order = choose_order(recipe.quantize, recipe.target.hardware, forms.latencies)
    replaced = score_predecessor(predecessor, recipe, dataset)
    measurements = _judge(order, recipe, evaluations, measurements, forms, replaced)
    chosen = _first_passing(order, measurements.verdicts)
    if chosen is None:
        save_gate_failure(output, measurements)
        raise _gate_failure(order, measurements.verdicts)
    measurements = replace(measurements, choice=_reason(recipe, order, chosen))
    manifest = make_manifest(output, parts, chosen, ship_only(output, chosen), measurements)
    card = model_card(manifest, card_sources(models, artifacts["data"]))
    (output / "README.md").write_text(card, encoding="utf-8")
    listed = {**describe_files(output, ["README.md"]), **manifest.files}
    write_manifest(output, structs.replace(manifest, files=listed))
    Predictor.open(output)  # verifies the bytes that are published
    return {
        "form": chosen,
        "gate": manifest.gate,
        "size_bytes": manifest.files[manifest.model.file].size_bytes,
    }


def measure_forms(
    directory: Path,
    parts: BundleParts,
    models: Mapping[str, Artifact],
    forms: Sequence[FormName],
) -> MeasuredForms:
    """Score and time the forms of an assembled bundle through the server's code."""
    recipe, dataset = parts.recipe, parts.dataset
    predictors = {
        form: open_candidate(directory, parts, form, recipe.target.threads) for form in forms
    }
    evaluations: dict[FormName, dict[str, EvaluatedSplit]] = {}
    for form, predictor in predictors.items():
        thresholds = parts.thresholds
        if thresholds is not None and predictor.thresholds is not None:  # as they will be served
            thresholds = replace(thresholds, values=predictor.thresholds)
        evaluations[form] = {
            split.name: evaluate(
                predictor, split, dataset.labels, thresholds, recipe.gate.positive_label
            )
            for split in dataset.splits()[1:]
        }
    return MeasuredForms(
        evaluations,
        {form: (directory / candidate_file(form)).stat().st_size for form in forms},
        _latencies(recipe, dataset.dev.inputs(), models, predictors),
    )


def _latencies(
    recipe: Recipe,
    inputs: Inputs,
    models: Mapping[str, Artifact],
    predictors: Mapping[FormName, Predictor],
) -> dict[str, Latency]:
    """Latencies at the target's shape, interleaved."""
    max_length, target = recipe.data.max_length, recipe.target
    runners: dict[str, Runner] = {
        name: load_torch_classifier(models[name].directory / "model", max_length).logits
        for name in ("teacher", "student")
    }
    runners.update((form, predictor.logits) for form, predictor in predictors.items())
    if target.tokens is not None:

        def lengths(rows: Inputs) -> Sequence[int]:
            return [len(row) for row in predictors["fp32"].tokenize(rows)]

        inputs = inputs_of_length(inputs, min(target.tokens, max_length), lengths)
    return measure_latency(runners, inputs, target.batch_size, target.threads)


def choose_order(
    settings: QuantizeSettings, hardware: Hardware, latencies: Mapping[str, Latency]
) -> list[FormName]:
    """The forms in the order in which they are tried.

    A list in the recipe is the order. "auto" sorts by latency and puts fp32, which is exact, last.
    """
    wanted = list(settings.wanted(hardware))
    if settings.forms != "auto":
        return wanted
    return sorted(wanted, key=lambda form: (form == "fp32", latencies[form].p50_ms))


def _run_measurements(
    recipe: Recipe,
    evaluations: Evaluations,
    models: Mapping[str, Artifact],
    trim: Artifact | None,
    forms: MeasuredForms,
) -> RunMeasurements:
    """All measurements, before the gate is applied."""
    sizes = {name: weights_size(artifact.directory) for name, artifact in models.items()}
    _, exported = weights_size((trim or models["student"]).directory)
    fp32 = forms.evaluations["fp32"]
    of_forms = forms.evaluations.items()
    return RunMeasurements(
        scores=torch_scores(evaluations)
        | {form: {name: one.scores for name, one in splits.items()} for form, splits in of_forms},
        size_bytes={name: size for name, (size, _) in sizes.items()} | dict(forms.size_bytes),
        parameters={name: count for name, (_, count) in sizes.items()}
        | dict.fromkeys(forms.size_bytes, exported),
        latency=forms.latencies,
        latency_conditions=_conditions(recipe.target),
        machine=machine_facts(),
        agreement={
            form: {
                name: agreement(one.predicted, fp32[name].predicted) for name, one in splits.items()
            }
            for form, splits in of_forms
        },
        vocabulary=None if trim is None else trim.facts,
    )


def _judge(
    order: Sequence[FormName],
    recipe: Recipe,
    evaluations: Evaluations,
    measurements: RunMeasurements,
    forms: MeasuredForms,
    replaced: PredecessorScores | None,
) -> RunMeasurements:
    """The measurements with the result of every gate rule for every form."""
    differences: dict[FormName, Difference] = {}
    if replaced is not None:
        for form in order:
            predicted = forms.evaluations[form][recipe.gate.split].predicted
            differences[form] = replaced.difference(predicted)
        measurements = replace(measurements, predecessor=replaced.to_facts(differences))
    verdicts: dict[str, list[gate.RuleResult]] = {}
    for form in order:
        measured = _gate_measurements(
            form, recipe, evaluations, measurements, forms, differences.get(form)
        )
        verdicts[form] = gate.check_rules(recipe.gate, recipe.metric, measured)
    return replace(measurements, verdicts=verdicts)


def _gate_failure(
    order: Sequence[FormName], verdicts: Mapping[str, Sequence[gate.RuleResult]]
) -> GateFailedError:
    return GateFailedError(
        "gate 2 (bundle through the server's code) failed, nothing was published",
        [f"{form}  {line}" for form in order for line in gate.verdict_lines(verdicts[form])],
        {
            f"gate 2 ({form})": [result.to_facts() for result in results]
            for form, results in verdicts.items()
        },
    )


def _gate_measurements(
    form: FormName,
    recipe: Recipe,
    evaluations: Evaluations,
    measured: RunMeasurements,
    forms: MeasuredForms,
    difference: Difference | None,
) -> gate.Measurements:
    """The values that gate 2 checks: those of the form, and teacher and baseline as in gate 1."""
    of_student = gate.measure_student(recipe, evaluations)
    split = recipe.gate.split
    result = forms.evaluations[form][split]
    return replace(
        of_student,
        value=result.scores[recipe.metric].value,
        student=of_student.value,
        class_recalls=gate.class_recalls(result),
        agreement=measured.agreement[form][split],
        unknown=None if measured.vocabulary is None else measured.vocabulary[split]["unknown"],
        size_bytes=forms.size_bytes[form],
        latency_ms=forms.latencies[form].p50_ms,
        predecessor=None if difference is None else difference.old,
        p_not_worse=None if difference is None else difference.p_not_worse,
    )


def _first_passing(
    order: Sequence[FormName], verdicts: Mapping[str, Sequence[gate.RuleResult]]
) -> FormName | None:
    """The first form that passes every rule; prints the rules of the forms up to it."""
    for form in order:
        for line in gate.verdict_lines(verdicts[form]):
            say(f"gate 2  {form}  {line}")
        if all(result.passed for result in verdicts[form]):
            return form
    return None


def _conditions(target: TargetSettings) -> str:
    texts = "dev texts" if target.tokens is None else f"texts of {target.tokens} tokens"
    threads = "one thread" if target.threads == 1 else f"{target.threads} threads"
    return f"text to logits, batch {target.batch_size}, {threads}, {texts}, this machine's CPU"


def _reason(recipe: Recipe, order: Sequence[FormName], chosen: FormName) -> str:
    how = "fastest first, fp32 last" if recipe.quantize.forms == "auto" else "recipe order"
    failed = order[: order.index(chosen)]
    return f"the first of {', '.join(order)} ({how}) to pass gate 2" + (
        f"; failed: {', '.join(failed)}" if failed else ""
    )
