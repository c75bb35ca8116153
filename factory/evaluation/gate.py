"""The gate: a table of rules, the measurements that they check, and the result.

To add a rule, add a row to `RULES`, its key to `factory.recipe.gate.GateSettings`, and, if it
compares a new quantity, a field to `Measurements`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from factory.errors import GateFailedError, RecipeError, short_list
from factory.recipe.task import TASK_TRAITS

if TYPE_CHECKING:
    from factory.evaluation.results import Evaluation, Evaluations
    from factory.recipe.gate import GateSettings
    from factory.recipe.recipe import Recipe

TOLERANCE = 1e-12  # in floating point 0.9 - 0.8 < 0.1


@dataclass(frozen=True, slots=True)
class Measurements:
    """The input of the gate's rules: values of one student or one form; None if not measured.

    Args:
        value, teacher, baseline, student: the gate's metric on the gate's split.
        class_recalls: recall by label, of the labels that occur in the split.
        agreement: with the fp32 file, on the split.
        unknown: share of [UNK] among the split's tokens.
        size_bytes: of the ONNX file.
        latency_ms: p50 at the shape of section [target].
        predecessor: the metric of the bundle to be replaced, on the same rows.
        p_not_worse: probability of a value at least this far below the predecessor's if both
            were equally good.
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

    @property
    def worst_class(self) -> str | None:
        """The label with the lowest recall."""
        recalls = self.class_recalls
        return min(recalls, key=lambda label: recalls[label]) if recalls else None


@dataclass(frozen=True, slots=True)
class Unit:
    """Format of a number in messages: `scale * number` with `decimals`, then the suffix."""

    decimals: int
    scale: float = 1.0
    suffix: str = ""


SCORE = Unit(4)
PERCENT = Unit(1, 100.0, " %")
BYTES = Unit(0, suffix=" bytes")
MILLISECONDS = Unit(2, suffix=" ms")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the gate.

    Args:
        key: in section [gate] of the recipe.
        direction: ">=" if the limit is a minimum, "<=" if it is a maximum.
        measure: the number to compare with the limit; None: not measured, the rule does not apply.
        message: a format string with `metric`, `measured` and the measurements `m`.
        needs: the requirement of the rule that the recipe does not meet, as a predicate, or None.
        is_quality: whether this rule alone is enough for a gate.
    """

    key: str
    direction: Literal[">=", "<="]
    unit: Unit
    measure: Callable[[Measurements], float | None]
    message: str
    needs: Callable[[Recipe], str | None] = lambda recipe: None
    is_quality: bool = False


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _retention(m: Measurements) -> float:
    """Share of the teacher's score; 0 for a teacher at or below zero (a correlation)."""
    return m.value / m.teacher if m.teacher > 0 else 0.0


def _lowest_recall(m: Measurements) -> float | None:
    return m.class_recalls[m.worst_class] if m.class_recalls and m.worst_class else None


def _needs_labels(recipe: Recipe) -> str | None:
    if not recipe.data.traits.has_labels:
        tasks = " or ".join(task for task, traits in TASK_TRAITS.items() if traits.has_labels)
        return f"needs data.task = {tasks}"
    return None


def _needs_baseline(recipe: Recipe) -> str | None:
    if recipe.distill.baseline == "off":
        return 'needs distill.baseline = "random" or "same"'
    return None


def _needs_trimming(recipe: Recipe) -> str | None:
    if recipe.export.general_pieces is None:
        return "needs export.general_pieces: a trimmed vocabulary"
    return None


RULES: tuple[Rule, ...] = (
    Rule("min_value", ">=", SCORE, lambda m: m.value, "{metric} {measured}", is_quality=True),
    Rule(
        "max_drop", "<=", SCORE, lambda m: m.teacher - m.value,
        "{metric} drop from the teacher {measured} ({m.teacher:.4f} - {m.value:.4f})",
        is_quality=True,
    ),
    Rule(
        "min_retention", ">=", PERCENT, _retention,
        "{metric} retention {measured} ({m.value:.4f} / {m.teacher:.4f})",
        is_quality=True,
    ),
    Rule(
        "min_gain", ">=", SCORE, lambda m: _difference(m.value, m.baseline),
        "{metric} gain over the undistilled student {measured} ({m.value:.4f} - {m.baseline:.4f})",
        needs=_needs_baseline, is_quality=True,
    ),
    Rule(
        "min_class_recall", ">=", SCORE, _lowest_recall,
        "lowest recall of a class {measured} ({m.worst_class})",
        needs=_needs_labels,
    ),
    Rule(
        "max_quantization_drop", "<=", SCORE, lambda m: _difference(m.student, m.value),
        "{metric} drop from the torch student {measured} ({m.student:.4f} - {m.value:.4f})",
    ),
    Rule(
        "min_agreement", ">=", PERCENT, lambda m: m.agreement,
        "agreement with fp32: {measured}",
        needs=_needs_labels,
    ),
    Rule(
        "max_unknown", "<=", PERCENT, lambda m: m.unknown,
        "share of [UNK] tokens {measured}",
        needs=_needs_trimming,
    ),
    Rule("max_size_bytes", "<=", BYTES, lambda m: m.size_bytes, "file size {measured}"),
    Rule(
        "max_latency_ms", "<=", MILLISECONDS, lambda m: m.latency_ms,
        "p50 latency at the target shape {measured}",
    ),
    Rule(
        "not_worse_than_predecessor", ">=", SCORE, lambda m: m.p_not_worse,
        "{metric} {m.value:.4f} against the predecessor's {m.predecessor:.4f}: "
        "p = {measured} if both are equally good",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RuleResult:
    """A checked rule: its limit, the measured value, and whether it passed."""

    rule: str
    measured: float
    limit: float
    passed: bool
    text: str

    def to_facts(self) -> dict[str, Any]:
        """The result as JSON data."""
        return asdict(self)


def check_rules(
    settings: GateSettings, metric: str, measurements: Measurements
) -> list[RuleResult]:
    """Check every rule of the recipe whose value was measured.

    At gate 1, rules on size, latency and the like are left out; gate 2 measures everything.
    """
    results = []
    for rule in RULES:
        limit: float | None = getattr(settings, rule.key)
        measured = rule.measure(measurements)
        if limit is None or measured is None:
            continue
        margin = measured - limit if rule.direction == ">=" else limit - measured
        passed = margin >= -TOLERANCE
        required = f"{rule.unit.scale * limit:.10g}{rule.unit.suffix}"
        shown = _shown(rule.unit, measured, None if passed else limit)
        message = rule.message.format(metric=metric, measured=shown, m=measurements)
        text = f"{rule.key}: {message}, required {rule.direction} {required}"
        results.append(RuleResult(rule.key, float(measured), float(limit), passed, text))
    return results


def recipe_problem(recipe: Recipe) -> str | None:
    """Why the gate's rules do not fit the rest of a recipe; None if they do."""
    chosen = [rule for rule in RULES if getattr(recipe.gate, rule.key) is not None]
    if not any(rule.is_quality for rule in chosen):
        names = ", ".join(rule.key for rule in RULES if rule.is_quality)
        return f"gate has no quality rule: set one of {names}"
    for rule in chosen:
        if (problem := rule.needs(recipe)) is not None:
            return f"gate.{rule.key} {problem}"
    return None


def check_labels(settings: GateSettings, metric: str, labels: Sequence[str]) -> None:
    """Check that f1 and the positive label fit the labels of the data.

    Raises:
        RecipeError: f1 or a positive label for more than two labels, or an unknown label.
    """
    positive = settings.positive_label
    if len(labels) != 2 and metric == "f1":
        problem = (
            f'"f1" is the F1 of one label out of two, the data has {len(labels)}; '
            'choose "macro_f1", the mean over all labels'
        )
        raise RecipeError("gate.metric", [problem])
    if len(labels) != 2 and positive is not None:
        problem = f"needs data with two labels, this has {len(labels)}; remove it"
        raise RecipeError("gate.positive_label", [problem])
    if positive is not None and positive not in labels:
        problem = f"{positive!r} is not one of the labels {short_list(labels)}"
        raise RecipeError("gate.positive_label", [problem])


def measure_student(recipe: Recipe, evaluations: Evaluations) -> Measurements:
    """The measurements of gate 1, of the student in torch."""
    split, metric = recipe.gate.split, recipe.metric
    baseline = evaluations.get("baseline")
    student = evaluations["student"][split]
    return Measurements(
        value=student.scores[metric].value,
        teacher=evaluations["teacher"][split].scores[metric].value,
        baseline=None if baseline is None else baseline[split].scores[metric].value,
        class_recalls=class_recalls(student),
    )


def class_recalls(evaluation: Evaluation) -> dict[str, float]:
    """Recall of each label that occurs in the split."""
    return {label: one.recall for label, one in evaluation.per_class.items() if one.support > 0}


def verdict_lines(results: Sequence[RuleResult]) -> list[str]:
    """One line per rule."""
    return [f"{'pass' if result.passed else 'FAIL'}  {result.text}" for result in results]


def require(gate: str, results: Sequence[RuleResult]) -> None:
    """Raise if any rule failed; any failed rule fails the gate.

    Raises:
        GateFailedError: with the lines of all rules, failed ones first.
    """
    if all(result.passed for result in results):
        return
    ordered = sorted(results, key=lambda result: result.passed)
    raise GateFailedError(
        f"{gate} failed, nothing was published",
        verdict_lines(ordered),
        {gate: [result.to_facts() for result in results]},
    )


def _shown(unit: Unit, number: float, missed: float | None) -> str:
    """A number in its unit, with enough decimals to differ from the limit it missed."""
    for decimals in range(unit.decimals, 13):
        shown = f"{unit.scale * number:.{decimals}f}"
        if missed is None or shown != f"{unit.scale * missed:.{decimals}f}":
            break
    return shown + unit.suffix
