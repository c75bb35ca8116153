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
    TORCH_MODELS,
    RunMeasurements,
    save_gate_failure,
    torch_scores,
)
from factory.bundle.model_card import card_sources, model_card
from factory.data.dataset import Dataset
from factory.errors import GateFailedError
from factory.evaluation import gate
from factory.evaluation.evaluate import (
    EvaluatedSplit,
    Evaluations,
    agreement,
    evaluate,
    evaluations_from_facts,
)
from factory.evaluation.latency import Inputs, Latency, Runner, inputs_of_length, measure_latency
from factory.evaluation.predecessor import Predecessor, score_predecessor
from factory.evaluation.significance import Difference
from factory.export.forms import FormName, Hardware
from factory.models.classifier import load_torch_classifier
from factory.recipe.export import QuantizeSettings, TargetSettings
from factory.recipe.recipe import Recipe
from factory.runtime.environment import machine_facts
from factory.runtime.progress import say
from factory.store import Artifact
from serving.bundle import describe_files, write_manifest
from serving.predictor import Predictor

VERSION_DIGITS = 16


@dataclass(frozen=True, slots=True)
class MeasuredForms:
    """What every form reached through the server's own code.

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
    fingerprint: str,
    recipe: Recipe,
    dataset: Dataset,
    artifacts: Mapping[str, Artifact],
    files: Mapping[FormName, Path],
    predecessor: Predecessor | None = None,
) -> dict[str, Any]:
    """Assemble the bundle in `output`; gate 2 chooses the form that it serves.

    Args:
        artifacts: data, teacher, student, evaluation, onnx and, if made, baseline, unpruned and
            trimmed.
        files: ONNX file by form; fp32 is always among them.

    Returns:
        The facts of the stage: the served form, its gate results, and the size of its file.

    Raises:
        GateFailedError: no form of the recipe passes every rule; what was measured is saved in
            `output`.
    """
    model = artifacts.get("trimmed", artifacts["student"]).directory / "model"
    copy_files(output, model, files)
    write_max_length(output, recipe.data.max_length)
    evaluations = evaluations_from_facts(artifacts["evaluation"].facts)
    parts = BundleParts(
        name=recipe.name,
        version=fingerprint[:VERSION_DIGITS],
        dataset=dataset,
        thresholds=evaluations["student"]["dev"].thresholds,
        max_length=recipe.data.max_length,
        opset=recipe.export.opset,
        recipe=recipe.model_dump(mode="json"),
        lineage={name: artifact.fingerprint for name, artifact in artifacts.items()},
        data_facts={"rows": {split.name: len(split) for split in dataset.splits()}},
    )
    forms = measure_forms(output, parts, recipe, artifacts, list(files))
    order = choose_order(recipe.quantize, recipe.target.hardware, forms.latencies)
    replaced = score_predecessor(predecessor, recipe, dataset)
    differences: dict[FormName, Difference] = {}
    if replaced is not None:
        for form in order:
            predicted = forms.evaluations[form][recipe.gate.split].predicted
            differences[form] = replaced.difference(predicted)
    verdicts: dict[str, list[gate.RuleResult]] = {
        form: gate.check_rules(
            recipe.gate,
            recipe.metric,
            _measure(form, recipe, evaluations, artifacts, forms, differences.get(form)),
        )
        for form in order
    }
    measurements = replace(
        _measurements(recipe, evaluations, artifacts, forms),
        verdicts=verdicts,
        predecessor=None if replaced is None else replaced.to_facts(differences),
    )
    chosen: FormName | None = None
    for form in order:
        for line in gate.verdict_lines(verdicts[form]):
            say(f"gate 2  {form}  {line}")
        if all(result.passed for result in verdicts[form]):
            chosen = form
            break
    if chosen is None:
        save_gate_failure(output, measurements)
        raise _gate_failed(verdicts)
    measurements = replace(measurements, choice=_reason(recipe, order, chosen))
    manifest = make_manifest(output, parts, chosen, ship_only(output, chosen), measurements)
    card = model_card(manifest, card_sources(artifacts))
    (output / "README.md").write_text(card, encoding="utf-8")
    listed = {**describe_files(output, ["README.md"]), **manifest.files}
    write_manifest(output, structs.replace(manifest, files=listed))
    Predictor.open(output)  # verifies the very bytes that are published
    return {
        "form": chosen,
        "gate": manifest.gate,
        "size_bytes": manifest.files[manifest.model.file].size_bytes,
    }


def measure_forms(
    directory: Path,
    parts: BundleParts,
    recipe: Recipe,
    artifacts: Mapping[str, Artifact],
    forms: Sequence[FormName],
) -> MeasuredForms:
    """Score and time the forms of an assembled bundle.

    Tokenizer, batching and session are the server's, so these are the scores that will be served.
    """
    predictors = {
        form: open_candidate(directory, parts, form, recipe.target.threads) for form in forms
    }
    dataset = parts.dataset
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
        _latencies(artifacts, recipe, dataset.dev.inputs(), predictors),
    )


def _latencies(
    artifacts: Mapping[str, Artifact],
    recipe: Recipe,
    inputs: Inputs,
    predictors: Mapping[FormName, Predictor],
) -> dict[str, Latency]:
    """At the target's shape, interleaved."""
    max_length, target = recipe.data.max_length, recipe.target
    runners: dict[str, Runner] = {
        name: load_torch_classifier(artifacts[name].directory / "model", max_length).logits
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


def _measure(
    form: FormName,
    recipe: Recipe,
    evaluations: Evaluations,
    artifacts: Mapping[str, Artifact],
    forms: MeasuredForms,
    difference: Difference | None,
) -> gate.Measurements:
    """What gate 2 checks: teacher and baseline as in gate 1, everything else of this form."""
    of_student = gate.measure_student(recipe, evaluations)
    split = recipe.gate.split
    result, fp32 = forms.evaluations[form][split], forms.evaluations["fp32"][split]
    trimmed = artifacts.get("trimmed")
    return replace(
        of_student,
        value=result.scores[recipe.metric].value,
        student=of_student.value,
        class_recalls=gate.class_recalls(result),
        agreement=agreement(result.predicted, fp32.predicted),
        unknown=None if trimmed is None else trimmed.facts[split]["unknown"],
        size_bytes=forms.size_bytes[form],
        latency_ms=forms.latencies[form].p50_ms,
        predecessor=None if difference is None else difference.old,
        p_not_worse=None if difference is None else difference.p_not_worse,
    )


def _measurements(
    recipe: Recipe,
    evaluations: Evaluations,
    artifacts: Mapping[str, Artifact],
    forms: MeasuredForms,
) -> RunMeasurements:
    scores = torch_scores(evaluations)
    agreements: dict[str, dict[str, float]] = {}
    for form, splits in forms.evaluations.items():
        scores[form] = {split: result.scores for split, result in splits.items()}
        agreements[form] = {
            split: agreement(result.predicted, forms.evaluations["fp32"][split].predicted)
            for split, result in splits.items()
        }
    sizes = {
        name: (artifacts[name].directory / "model" / "model.safetensors").stat().st_size
        for name in TORCH_MODELS
        if name in artifacts
    }
    sizes.update(forms.size_bytes.items())
    return RunMeasurements(
        scores=scores,
        size_bytes=sizes,
        parameters={name: artifacts[name].facts["parameters"] for name in ("teacher", "student")},
        latency=forms.latencies,
        latency_conditions=_conditions(recipe.target),
        machine=machine_facts(),
        agreement=agreements,
        vocabulary=artifacts["trimmed"].facts if "trimmed" in artifacts else None,
    )


def _conditions(target: TargetSettings) -> str:
    texts = "dev texts" if target.tokens is None else f"texts of {target.tokens} tokens"
    threads = "one thread" if target.threads == 1 else f"{target.threads} threads"
    return f"text to logits, batch {target.batch_size}, {threads}, {texts}, this machine's CPU"


def _gate_failed(verdicts: Mapping[str, Sequence[gate.RuleResult]]) -> GateFailedError:
    """The error that lists the rules of every form."""
    return GateFailedError(
        "gate 2 (bundle through the server's code) failed, nothing was published",
        [f"{form}  {line}" for form in verdicts for line in gate.verdict_lines(verdicts[form])],
        {
            f"gate 2 ({form})": [result.to_facts() for result in results]
            for form, results in verdicts.items()
        },
    )


def _reason(recipe: Recipe, order: Sequence[FormName], chosen: FormName) -> str:
    how = "fastest first, fp32 last" if recipe.quantize.forms == "auto" else "recipe order"
    failed = order[: order.index(chosen)]
    return f"the first of {', '.join(order)} ({how}) to pass gate 2" + (
        f"; failed: {', '.join(failed)}" if failed else ""
    )
