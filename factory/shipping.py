"""The bundle stage: score every variant as served, gate, keep the first that passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from factory import gate
from factory.bundle import VARIANT_FILES, BundleParts, copy_files, make_manifest, open_variant
from factory.classifier import load_torch_classifier
from factory.data.dataset import Dataset
from factory.errors import GateFailedError
from factory.evaluate import Evaluation, evaluate, share_alike, thresholds_of
from factory.latency import Latency, measure_latency
from factory.progress import say
from factory.recipe import Recipe
from factory.report import model_card
from factory.store import Artifact
from serving.bundle import write_manifest
from serving.predictor import Predictor

VERSION_DIGITS = 16


def ship(
    directory: Path,
    fingerprint: str,
    recipe: Recipe,
    dataset: Dataset,
    artifacts: Mapping[str, Artifact],
    variants: Mapping[str, Path],
) -> dict[str, Any]:
    """Assemble the bundle in `directory` and let gate 2 choose the variant it serves.

    Args:
        artifacts: data, teacher, student, evaluation, onnx and, if trained, baseline.
        variants: ONNX file by variant name; fp32 is always among them.

    Raises:
        GateFailedError: no variant of the recipe's list passes every rule.
    """
    copy_files(directory, artifacts["student"].directory / "model", variants)
    parts = _parts(fingerprint, recipe, dataset, artifacts)
    positive = recipe.gate.positive_label
    evaluations, predictors = _score_variants(directory, parts, variants, positive)
    latencies = _latencies(artifacts, recipe, dataset, predictors)
    verdicts = {
        variant: gate.check_rules(
            recipe.gate,
            recipe.metric,
            _measured(directory, variant, recipe, artifacts, evaluations[variant], latencies),
        )
        for variant in map(str, dict.fromkeys(recipe.quantize.variants))
    }
    chosen = _choose(verdicts)
    rules = [result.facts() for result in verdicts[chosen]]
    scores = _scores(artifacts["evaluation"].facts, evaluations)
    measurements = _measurements(directory, artifacts, evaluations, latencies, variants)
    manifest = make_manifest(
        directory, parts, chosen, scores=scores, measurements=measurements, gate=rules
    )
    (directory / "README.md").write_text(model_card(manifest), encoding="utf-8")
    manifest = make_manifest(
        directory, parts, chosen, scores=scores, measurements=measurements, gate=rules
    )
    write_manifest(directory, manifest)
    Predictor.open(directory)  # the very bytes that are published, verified once more
    return {
        "variant": chosen,
        "gate": rules,
        "size_bytes": manifest.files[manifest.model.file].size_bytes,
    }


def _parts(
    fingerprint: str, recipe: Recipe, dataset: Dataset, artifacts: Mapping[str, Artifact]
) -> BundleParts:
    return BundleParts(
        name=recipe.name,
        version=fingerprint[:VERSION_DIGITS],
        dataset=dataset,
        thresholds=thresholds_of(artifacts["evaluation"].facts, "student", dataset.labels),
        max_length=recipe.data.max_length,
        opset=recipe.export.opset,
        recipe=recipe.model_dump(mode="json"),
        lineage={name: artifact.fingerprint for name, artifact in artifacts.items()},
        data_facts={"rows": {split.name: len(split) for split in dataset.splits()}},
    )


def _score_variants(
    directory: Path,
    parts: BundleParts,
    variants: Mapping[str, Path],
    positive_label: str | None,
) -> tuple[dict[str, dict[str, Evaluation]], dict[str, Predictor]]:
    """Evaluation per variant and split, through the server's tokenizer and session."""
    evaluations: dict[str, dict[str, Evaluation]] = {}
    predictors = {}
    thresholds = parts.thresholds
    for variant in variants:
        predictor = open_variant(directory, parts, variant)
        predictors[variant] = predictor
        if thresholds is not None and predictor.thresholds is not None:  # as they will be served
            thresholds = replace(thresholds, values=predictor.thresholds)
        evaluations[variant] = {
            split.name: evaluate(predictor, split, parts.dataset.labels, thresholds, positive_label)
            for split in parts.dataset.splits()[1:]
        }
    return evaluations, predictors


def _latencies(
    artifacts: Mapping[str, Artifact],
    recipe: Recipe,
    dataset: Dataset,
    predictors: Mapping[str, Predictor],
) -> dict[str, Latency]:
    runners = {
        name: load_torch_classifier(
            artifacts[name].directory / "model", recipe.data.max_length
        ).logits
        for name in ("teacher", "student")
    }
    served = {variant: predictor.logits for variant, predictor in predictors.items()}
    return measure_latency({**runners, **served}, dataset.dev.inputs())


def _measured(
    directory: Path,
    variant: str,
    recipe: Recipe,
    artifacts: Mapping[str, Artifact],
    evaluation: Mapping[str, Evaluation],
    latencies: Mapping[str, Latency],
) -> gate.Measured:
    """What gate 2 looks at: gate 1's teacher and baseline, this variant's everything else."""
    of_student = gate.measured_student(recipe, artifacts["evaluation"].facts)
    result = evaluation[recipe.gate.split]
    return replace(
        of_student,
        value=result.scores[recipe.metric].value,
        student=of_student.value,
        class_recalls=gate.class_recalls(result.per_class),
        size_bytes=(directory / VARIANT_FILES[variant]).stat().st_size,
        latency_ms=latencies[variant].p50_ms,
    )


def _choose(verdicts: Mapping[str, list[gate.RuleResult]]) -> str:
    """The first variant that passes every rule.

    Raises:
        GateFailedError: there is none; the message holds the rules of every variant.
    """
    lines = []
    for variant, results in verdicts.items():
        shown = [f"{variant}  {line}" for line in gate.verdict_lines(results)]
        for line in shown:
            say(f"gate 2  {line}")
        if all(result.passed for result in results):
            return variant
        lines += shown
    raise GateFailedError(
        "gate 2 (bundle through the server's code) failed, nothing was published", lines
    )


def _scores(
    evaluation: Mapping[str, Any], evaluations: Mapping[str, Mapping[str, Evaluation]]
) -> dict[str, Any]:
    """Every model's scores by split, torch models first."""
    torch_scores = {
        model: {
            split: {"rows": facts["rows"], **facts["scores"]} for split, facts in splits.items()
        }
        for model, splits in evaluation.items()
    }
    served_scores = {
        variant: {
            split: {
                "rows": result.rows,
                **{metric: asdict(score) for metric, score in result.scores.items()},
            }
            for split, result in splits.items()
        }
        for variant, splits in evaluations.items()
    }
    return {**torch_scores, **served_scores}


def _measurements(
    directory: Path,
    artifacts: Mapping[str, Artifact],
    evaluations: Mapping[str, Mapping[str, Evaluation]],
    latencies: Mapping[str, Latency],
    variants: Mapping[str, Path],
) -> dict[str, Any]:
    sizes = {
        name: (artifacts[name].directory / "model" / "model.safetensors").stat().st_size
        for name in ("teacher", "student", "baseline")
        if name in artifacts
    }
    sizes |= {variant: (directory / VARIANT_FILES[variant]).stat().st_size for variant in variants}
    agreement = {
        variant: {
            split: share_alike(result.predicted, evaluations["fp32"][split].predicted)
            for split, result in splits.items()
        }
        for variant, splits in evaluations.items()
    }
    return {
        "size_bytes": sizes,
        "latency": {name: latency.facts() for name, latency in latencies.items()},
        "latency_conditions": "text to logits, batch 1, one thread, dev texts, this machine's CPU",
        "label_agreement_with_fp32": agreement,
        "parameters": {
            "teacher": artifacts["teacher"].facts["parameters"],
            "student": artifacts["student"].facts["parameters"],
        },
    }
