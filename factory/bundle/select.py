"""The bundle stage: score every variant as served, gate, keep the first that passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from factory.bundle.assemble import (
    BundleParts,
    copy_files,
    make_manifest,
    ship_only,
    tell_max_length,
)
from factory.bundle.candidates import Candidates, measure_candidates
from factory.bundle.model_card import card_metadata, card_sources
from factory.data.dataset import Dataset
from factory.errors import GateFailedError
from factory.evaluation import gate
from factory.evaluation.evaluate import EvaluatedSplit, agreement, evaluations_from_facts
from factory.evaluation.latency import Latency
from factory.evaluation.predecessor import Predecessor, PredecessorScores, score_predecessor
from factory.evaluation.significance import Difference
from factory.export.forms import FORMS, FormName, Hardware
from factory.recipe.export import QuantizeSettings, TargetSettings
from factory.recipe.recipe import Recipe
from factory.report.gate_failure import note_refusal
from factory.report.tables import TORCH_MODELS, model_card
from factory.runtime.environment import machine_facts
from factory.runtime.progress import say
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
    variants: Mapping[FormName, Path],
    predecessor: Predecessor | None = None,
) -> dict[str, Any]:
    """Assemble the bundle in `directory` and let gate 2 choose the variant it serves.

    Args:
        artifacts: data, teacher, student, evaluation, onnx and, if trained, baseline.
        variants: ONNX file by variant name; fp32 is always among them.

    Raises:
        GateFailedError: no variant of the recipe's list passes every rule.
    """
    shipped = artifacts.get("trimmed", artifacts["student"])
    copy_files(directory, shipped.directory / "model", variants)
    tell_max_length(directory, recipe.data.max_length)
    parts = _parts(fingerprint, recipe, dataset, artifacts)
    candidates = measure_candidates(directory, parts, recipe, artifacts, variants)
    order = choose_order(recipe.quantize, recipe.target.hardware, candidates.latencies)
    predecessor_scores = score_predecessor(predecessor, recipe, dataset)
    differences = _differences(predecessor_scores, order, recipe, candidates)
    verdicts = {
        variant: gate.check_rules(
            recipe.gate,
            recipe.metric,
            _measure(variant, recipe, artifacts, candidates, differences.get(variant)),
        )
        for variant in order
    }
    scores = _scores(artifacts["evaluation"].facts, candidates.evaluations)
    measurements = {
        **_measurements(recipe, artifacts, candidates),
        **(
            {}
            if predecessor_scores is None
            else {"predecessor": predecessor_scores.to_facts(differences)}
        ),
        "forms": _verdict_facts(verdicts),
    }
    note_refusal(directory, scores, measurements, verdicts)
    chosen = _choose(verdicts)
    rules = [result.to_facts() for result in verdicts[chosen]]
    measurements["choice"] = _reason(recipe, verdicts, chosen)
    file = ship_only(directory, chosen)
    manifest = make_manifest(
        directory, parts, chosen, file, scores=scores, measurements=measurements, gate=rules
    )
    card = card_metadata(manifest, card_sources(artifacts)) + model_card(manifest)
    (directory / "README.md").write_text(card, encoding="utf-8")
    manifest = make_manifest(
        directory, parts, chosen, file, scores=scores, measurements=measurements, gate=rules
    )
    write_manifest(directory, manifest)
    Predictor.open(directory)  # the very bytes that are published, verified once more
    return {
        "variant": chosen,
        "gate": rules,
        "size_bytes": manifest.files[manifest.model.file].size_bytes,
    }


def choose_order(
    settings: QuantizeSettings, hardware: Hardware, latencies: Mapping[str, Latency]
) -> list[FormName]:
    """The forms in the order in which they are tried.

    A recipe's own list is its order. "auto" puts the fastest first and fp32, which is exact, last.
    """
    wanted = list(settings.wanted(hardware))
    if settings.forms != "auto":
        return wanted
    return sorted(wanted, key=lambda form: (form == "fp32", latencies[form].p50_ms))


def _parts(
    fingerprint: str, recipe: Recipe, dataset: Dataset, artifacts: Mapping[str, Artifact]
) -> BundleParts:
    return BundleParts(
        name=recipe.name,
        version=fingerprint[:VERSION_DIGITS],
        dataset=dataset,
        thresholds=evaluations_from_facts(artifacts["evaluation"].facts)["student"][
            "dev"
        ].thresholds,
        max_length=recipe.data.max_length,
        opset=recipe.export.opset,
        recipe=recipe.model_dump(mode="json"),
        lineage={name: artifact.fingerprint for name, artifact in artifacts.items()},
        data_facts={"rows": {split.name: len(split) for split in dataset.splits()}},
    )


def _measure(
    variant: FormName,
    recipe: Recipe,
    artifacts: Mapping[str, Artifact],
    candidates: Candidates,
    difference: Difference | None,
) -> gate.Measurements:
    """What gate 2 looks at: gate 1's teacher and baseline, this variant's everything else."""
    evaluations = evaluations_from_facts(artifacts["evaluation"].facts)
    of_student = gate.measure_student(recipe, evaluations)
    split = recipe.gate.split
    result = candidates.evaluations[variant][split]
    fp32 = candidates.evaluations["fp32"][split]
    return replace(
        of_student,
        value=result.scores[recipe.metric].value,
        student=of_student.value,
        class_recalls=gate.class_recalls(result),
        agreement=agreement(result.predicted, fp32.predicted),
        unknown=_unknown(artifacts, split),
        size_bytes=candidates.size_bytes[variant],
        latency_ms=candidates.latencies[variant].p50_ms,
        predecessor=None if difference is None else difference.old,
        p_not_worse=None if difference is None else difference.p_not_worse,
    )


def _differences(
    predecessor: PredecessorScores | None,
    order: Sequence[FormName],
    recipe: Recipe,
    candidates: Candidates,
) -> dict[FormName, Difference]:
    """Each variant's difference from the predecessor; empty without one."""
    if predecessor is None:
        return {}
    split = recipe.gate.split
    return {
        variant: predecessor.difference(candidates.evaluations[variant][split].predicted)
        for variant in order
    }


def _unknown(artifacts: Mapping[str, Artifact], split: str) -> float | None:
    """The share of tokens that the shipped vocabulary does not know, where it was cut."""
    if "trimmed" not in artifacts:
        return None
    share: float = artifacts["trimmed"].facts[split]["unknown"]
    return share


def _choose(verdicts: Mapping[FormName, list[gate.RuleResult]]) -> FormName:
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
        "gate 2 (bundle through the server's code) failed, nothing was published",
        lines,
        {
            f"gate 2 ({variant})": [result.to_facts() for result in results]
            for variant, results in verdicts.items()
        },
    )


def _scores(
    evaluation: Mapping[str, Any], evaluations: Mapping[FormName, Mapping[str, EvaluatedSplit]]
) -> dict[str, Any]:
    """Every model's scores by split, torch models first."""
    torch_scores = {
        model: {
            split: {"rows": facts["rows"], **facts["scores"]} for split, facts in splits.items()
        }
        for model, splits in evaluation.items()
    }
    served_scores = {
        str(variant): {
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
    recipe: Recipe, artifacts: Mapping[str, Artifact], candidates: Candidates
) -> dict[str, Any]:
    sizes: dict[str, int] = {
        name: (artifacts[name].directory / "model" / "model.safetensors").stat().st_size
        for name in TORCH_MODELS
        if name in artifacts
    }
    sizes.update(candidates.size_bytes.items())
    evaluations = candidates.evaluations
    agreements = {
        variant: {
            split: agreement(result.predicted, evaluations["fp32"][split].predicted)
            for split, result in splits.items()
        }
        for variant, splits in evaluations.items()
    }
    return {
        "size_bytes": sizes,
        "latency": {name: latency.to_facts() for name, latency in candidates.latencies.items()},
        "latency_conditions": _conditions(recipe.target),
        "machine": machine_facts(),
        "label_agreement_with_fp32": agreements,
        **({"vocabulary": artifacts["trimmed"].facts} if "trimmed" in artifacts else {}),
        "parameters": {
            "teacher": artifacts["teacher"].facts["parameters"],
            "student": artifacts["student"].facts["parameters"],
        },
    }


def _conditions(target: TargetSettings) -> str:
    texts = "dev texts" if target.tokens is None else f"texts of {target.tokens} tokens"
    threads = "one thread" if target.threads == 1 else f"{target.threads} threads"
    return f"text to logits, batch {target.batch_size}, {threads}, {texts}, this machine's CPU"


def _verdict_facts(
    verdicts: Mapping[FormName, list[gate.RuleResult]],
) -> dict[str, Any]:
    """What gate 2 said of each variant it looked at, in the order of preference."""
    return {
        variant: {
            "neighbour_independent": FORMS[variant].neighbour_independent,
            "passed": all(result.passed for result in results),
            "failed_rules": [result.text for result in results if not result.passed],
        }
        for variant, results in verdicts.items()
    }


def _reason(
    recipe: Recipe, verdicts: Mapping[FormName, list[gate.RuleResult]], chosen: FormName
) -> str:
    order = list(verdicts)
    how = (
        "the fastest first, fp32 last" if recipe.quantize.forms == "auto" else "the recipe's order"
    )
    before = order[: order.index(chosen)]
    failed = f"; failed before it: {', '.join(before)}" if before else ""
    return f"{chosen}: the first of {', '.join(order)} ({how}) that passes{failed}"
