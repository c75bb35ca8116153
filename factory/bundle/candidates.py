"""Every variant of a bundle opened by the server's code and measured: scores, size, latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from factory.bundle.assemble import BundleParts, candidate_file, open_candidate
from factory.evaluation.evaluate import EvaluatedSplit, evaluate
from factory.evaluation.latency import Inputs, Latency, Runner, inputs_of_length, measure_latency
from factory.export.forms import FormName
from factory.models.classifier import load_torch_classifier
from factory.recipe.recipe import Recipe
from factory.store import Artifact
from serving.predictor import Predictor


@dataclass(frozen=True, slots=True)
class Candidates:
    """What each variant reached; `latencies` has the teacher and the student in torch besides."""

    evaluations: Mapping[FormName, Mapping[str, EvaluatedSplit]]
    size_bytes: Mapping[FormName, int]
    latencies: Mapping[str, Latency]


def measure_candidates(
    directory: Path,
    parts: BundleParts,
    recipe: Recipe,
    artifacts: Mapping[str, Artifact],
    variants: Mapping[FormName, Path],
) -> Candidates:
    """Score and time the variants that stand in an assembled bundle.

    Scores go through the server's tokenizer, batching and session, so that they are the scores
    that will be served.
    """
    threads = recipe.target.threads
    predictors = {
        variant: open_candidate(directory, parts, variant, threads) for variant in variants
    }
    return Candidates(
        _evaluations(parts, predictors, recipe.gate.positive_label),
        {variant: (directory / candidate_file(variant)).stat().st_size for variant in variants},
        _latencies(artifacts, recipe, parts.dataset.dev.inputs(), predictors),
    )


def _evaluations(
    parts: BundleParts,
    predictors: Mapping[FormName, Predictor],
    positive_label: str | None,
) -> dict[FormName, dict[str, EvaluatedSplit]]:
    """By variant and split."""
    evaluations: dict[FormName, dict[str, EvaluatedSplit]] = {}
    thresholds = parts.thresholds
    for variant, predictor in predictors.items():
        if thresholds is not None and predictor.thresholds is not None:  # as they will be served
            thresholds = replace(thresholds, values=predictor.thresholds)
        evaluations[variant] = {
            split.name: evaluate(predictor, split, parts.dataset.labels, thresholds, positive_label)
            for split in parts.dataset.splits()[1:]
        }
    return evaluations


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
    runners.update((variant, predictor.logits) for variant, predictor in predictors.items())
    if target.tokens is not None:

        def lengths(rows: Inputs) -> Sequence[int]:
            return [len(row) for row in predictors["fp32"].tokenize(rows)]

        inputs = inputs_of_length(inputs, min(target.tokens, max_length), lengths)
    return measure_latency(runners, inputs, target.batch_size, target.threads)
