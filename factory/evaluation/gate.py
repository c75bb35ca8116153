"""Gate rules to a verdict: every rule of the recipe against what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from factory.errors import GateFailedError, RecipeError
from factory.recipe.gate import GateSettings
from factory.recipe.recipe import Recipe

# A tie arrives as a difference or quotient of two floats: 0.9 - 0.8 is below 0.1.
TIE = 1e-12


@dataclass(frozen=True, slots=True)
class Measured:
    """What a candidate reached; a value that was not measured is None.

    Args:
        value, teacher, baseline, student: the gate's metric on the gate's split.
        class_recalls: recall per label.
        agreement: share of the split's rows labelled as the fp32 file labels them.
        unknown: share of [UNK] among the split's tokens.
        size_bytes: of the ONNX file.
        latency_ms: p50 at the shape of section [target].
        predecessor: the metric of the bundle to be replaced, on the same rows.
        p_not_worse: probability of a value so far below the predecessor's, or further, for a
            candidate that is as good.
    """

    value: float
    teacher: float
    baseline: float | None = None
    student: float | None = None
    class_recalls: Mapping[str, float] | None = None
    agreement: float | None = None
    unknown: float | None = None
    size_bytes: int | None = None
    latency_ms: float | None = None
    predecessor: float | None = None
    p_not_worse: float | None = None


@dataclass(frozen=True, slots=True)
class RuleResult:
    """One rule: the limit, what was measured against it, and the outcome."""

    rule: str
    measured: float
    limit: float
    passed: bool
    text: str

    def facts(self) -> dict[str, Any]:
        """The result as JSON data."""
        return asdict(self)


def check_rules(settings: GateSettings, metric: str, measured: Measured) -> list[RuleResult]:
    """Every rule of the recipe that applies to what was measured.

    A rule about something not measured here (the size before there is a file) does not apply and
    is left out; the second gate measures everything.
    """
    value, teacher = measured.value, measured.teacher
    results = [
        _at_least("min_value", metric, value, settings.min_value),
        _at_most("max_drop", f"{metric} lost to the teacher", teacher - value, settings.max_drop),
        _at_least(
            "min_retention",
            f"{metric} kept of the teacher's {teacher:.4f}",
            _retention(value, teacher),
            settings.min_retention,
        ),
    ]
    if measured.baseline is not None:
        gain = value - measured.baseline
        label = f"{metric} gained over the undistilled student"
        results.append(_at_least("min_gain", label, gain, settings.min_gain))
    if measured.class_recalls:
        worst = min(measured.class_recalls, key=lambda label: measured.class_recalls[label])  # type: ignore[index]
        results.append(
            _at_least(
                "min_class_recall",
                f"recall of the worst class, {worst}",
                measured.class_recalls[worst],
                settings.min_class_recall,
            )
        )
    if measured.student is not None:
        label = f"{metric} lost to the student in torch"
        drop = measured.student - value
        limit = settings.max_quantization_drop
        results.append(_at_most("max_quantization_drop", label, drop, limit))
    if measured.agreement is not None:
        label = "rows labelled as by the fp32 file"
        results.append(
            _at_least("min_agreement", label, measured.agreement, settings.min_agreement)
        )
    if measured.unknown is not None:
        label = "[UNK] among the tokens"
        results.append(_at_most("max_unknown", label, measured.unknown, settings.max_unknown))
    if measured.size_bytes is not None:
        size = float(measured.size_bytes)
        results.append(
            _at_most("max_size_bytes", "bytes of the file", size, settings.max_size_bytes)
        )
    if measured.latency_ms is not None:
        label = "milliseconds at the target's shape, p50"
        results.append(
            _at_most("max_latency_ms", label, measured.latency_ms, settings.max_latency_ms)
        )
    if measured.predecessor is not None and measured.p_not_worse is not None:
        label = (
            f"p of {metric} {value:.4f} for a model as good as the predecessor, which has "
            f"{measured.predecessor:.4f},"
        )
        rule, significance = "not_worse_than_predecessor", settings.not_worse_than_predecessor
        results.append(_at_least(rule, label, measured.p_not_worse, significance))
    return [result for result in results if result is not None]


def check_labels(settings: GateSettings, metric: str, labels: Sequence[str]) -> None:
    """Refuse a gate about one class of two where the data has other classes.

    Raises:
        RecipeError: f1 or a positive label for more than two labels, or a label that is not there.
    """
    names = ", ".join(repr(label) for label in labels[:20])
    positive = settings.positive_label
    if len(labels) != 2 and metric == "f1":
        problem = (
            f'"f1" is the F1 of one label out of two, the data has {len(labels)}; '
            'choose "macro_f1", the mean over all labels'
        )
        raise RecipeError("gate.metric", [problem])
    if len(labels) != 2 and positive is not None:
        problem = f"belongs to data with two labels, this has {len(labels)}; remove it"
        raise RecipeError("gate.positive_label", [problem])
    if positive is not None and positive not in labels:
        raise RecipeError("gate.positive_label", [f"{positive!r} is none of the labels {names}"])


def measured_student(recipe: Recipe, evaluation: Mapping[str, Any]) -> Measured:
    """What gate 1 looks at, out of the evaluate stage's facts."""
    split, metric = recipe.gate.split, recipe.metric

    def value(model: str) -> float:
        return float(evaluation[model][split]["scores"][metric]["value"])

    return Measured(
        value=value("student"),
        teacher=value("teacher"),
        baseline=value("baseline") if "baseline" in evaluation else None,
        class_recalls=class_recalls(evaluation["student"][split]["per_class"]),
    )


def class_recalls(per_class: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Recall of each label that occurs in the split."""
    return {label: row["recall"] for label, row in per_class.items() if row["support"] > 0}


def verdict_lines(results: Sequence[RuleResult]) -> list[str]:
    """One readable line per rule."""
    return [f"{'pass' if result.passed else 'FAIL'}  {result.text}" for result in results]


def require(gate: str, results: Sequence[RuleResult]) -> None:
    """Stop when any rule failed.

    Raises:
        GateFailedError: with the lines of all rules, failed ones first.
    """
    if all(result.passed for result in results):
        return
    ordered = sorted(results, key=lambda result: result.passed)
    raise GateFailedError(
        f"{gate} failed, nothing was published",
        verdict_lines(ordered),
        {gate: [result.facts() for result in results]},
    )


def _retention(value: float, teacher: float) -> float:
    """Candidate over teacher; a teacher at or below zero (a correlation) keeps nothing."""
    return value / teacher if teacher > 0 else 0.0


def _at_least(rule: str, label: str, measured: float, limit: float | None) -> RuleResult | None:
    if limit is None:
        return None
    passed = measured >= limit - TIE
    sign = ">=" if passed else "<"
    return RuleResult(
        rule, measured, limit, passed, f"{rule}: {label} is {measured:.4f} {sign} {limit:g}"
    )


def _at_most(rule: str, label: str, measured: float, limit: float | None) -> RuleResult | None:
    if limit is None:
        return None
    passed = measured <= limit + TIE
    sign = "<=" if passed else ">"
    shown = f"{measured:.4f}" if abs(measured) < 1000 else f"{measured:.0f}"
    return RuleResult(
        rule, measured, limit, passed, f"{rule}: {label} is {shown} {sign} {limit:.10g}"
    )
