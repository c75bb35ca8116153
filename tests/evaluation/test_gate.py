"""The gate's rules on both sides of every limit, and their messages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from helpers.minimal_recipe import recipe_tree

from factory.errors import EXIT_GATE, GateFailedError, RecipeError
from factory.evaluation.gate import (
    RULES,
    Measurements,
    RuleResult,
    check_labels,
    check_rules,
    class_recalls,
    measure_student,
    require,
    verdict_lines,
)
from factory.evaluation.metrics import LabelScore, Score
from factory.evaluation.results import Evaluation
from factory.recipe.file import parse_recipe
from factory.recipe.gate import GateSettings

ALL_RULES = GateSettings(
    min_value=0.8,
    max_drop=0.1,
    min_retention=0.9,
    min_gain=0.05,
    min_class_recall=0.5,
    max_quantization_drop=0.01,
    min_agreement=0.95,
    max_unknown=0.02,
    max_size_bytes=20_000_000,
    max_latency_ms=5.0,
)
GOOD = Measurements(
    value=0.9,
    teacher=0.92,
    baseline=0.8,
    student=0.9,
    class_recalls={"refund": 0.95, "cancel": 0.7},
    agreement=0.98,
    unknown=0.01,
    size_bytes=14_500_000,
    latency_ms=2.5,
)
NOTHING = Measurements(value=0.5, teacher=0.5)


def only(settings: GateSettings, measured: Measurements, rule: str) -> RuleResult:
    """The one result of a rule."""
    (result,) = [r for r in check_rules(settings, "accuracy", measured) if r.rule == rule]
    return result


AT_LIMIT: list[tuple[str, float, dict[str, Any], dict[str, Any]]] = [
    ("min_value", 0.9, {"value": 0.9}, {"value": 0.8999}),
    ("max_drop", 0.125, {"value": 0.75, "teacher": 0.875}, {"value": 0.7499, "teacher": 0.875}),
    (
        "min_retention",
        0.75,
        {"value": 0.375, "teacher": 0.5},
        {"value": 0.3749, "teacher": 0.5},
    ),
    ("min_gain", 0.25, {"value": 0.75, "baseline": 0.5}, {"value": 0.7499, "baseline": 0.5}),
    (
        "min_class_recall",
        0.5,
        {"class_recalls": {"a": 0.9, "b": 0.5}},
        {"class_recalls": {"a": 0.9, "b": 0.4999}},
    ),
    (
        "max_quantization_drop",
        0.125,
        {"value": 0.75, "student": 0.875},
        {"value": 0.7499, "student": 0.875},
    ),
    ("min_agreement", 0.98, {"agreement": 0.98}, {"agreement": 0.9799}),
    ("max_unknown", 0.25, {"unknown": 0.25}, {"unknown": 0.2501}),
    ("max_size_bytes", 1000, {"size_bytes": 1000}, {"size_bytes": 1001}),
    ("max_latency_ms", 10.0, {"latency_ms": 10.0}, {"latency_ms": 10.001}),
    (
        "not_worse_than_predecessor",
        0.25,
        {"p_not_worse": 0.25, "predecessor": 0.5},
        {"p_not_worse": 0.2499, "predecessor": 0.5},
    ),
]


def test_every_rule_has_a_case_that_fails() -> None:
    assert {rule for rule, *_ in AT_LIMIT} == {rule.key for rule in RULES}


@pytest.mark.parametrize(("rule", "limit", "at_limit", "beyond"), AT_LIMIT)
def test_a_rule_passes_at_its_limit_and_fails_beyond(
    rule: str, limit: float, at_limit: dict[str, Any], beyond: dict[str, Any]
) -> None:
    old = {"predecessor": "old"} if rule == "not_worse_than_predecessor" else {}
    settings = GateSettings(**{rule: limit, **old})  # type: ignore[arg-type]
    passing = only(settings, replace(NOTHING, **at_limit), rule)
    failing = only(settings, replace(NOTHING, **beyond), rule)
    assert passing.passed is True
    assert failing.passed is False
    assert passing.limit == failing.limit == limit
    assert passing.measured == pytest.approx(limit, abs=1e-12)


@pytest.mark.parametrize(
    ("rule", "limit", "measured", "plain_comparison_fails"),
    [
        ("max_drop", 0.1, {"value": 0.7, "teacher": 0.8}, 0.8 - 0.7 > 0.1),
        ("min_retention", 0.51, {"value": 0.2703, "teacher": 0.53}, 0.2703 / 0.53 < 0.51),
        ("min_gain", 0.1, {"value": 0.9, "baseline": 0.8}, 0.9 - 0.8 < 0.1),
        ("max_quantization_drop", 0.01, {"value": 0.91, "student": 0.92}, 0.92 - 0.91 > 0.01),
    ],
)
def test_a_tie_passes_in_floating_point(
    rule: str, limit: float, measured: dict[str, float], plain_comparison_fails: bool
) -> None:
    assert plain_comparison_fails
    settings = GateSettings(**{rule: limit})  # type: ignore[arg-type]
    assert only(settings, replace(NOTHING, **measured), rule).passed
    assert not only(
        settings, replace(NOTHING, **{**measured, "value": measured["value"] - 1e-9}), rule
    ).passed


@pytest.mark.parametrize(
    ("value", "teacher", "retention"),
    [
        (0.45, 0.5, 0.9),
        (0.6, 0.5, 1.2),
        (-0.25, 0.5, -0.5),
        # dividing by a correlation of at most 0 would turn bad into good
        (0.3, 0.0, 0.0),
        (0.0, 0.0, 0.0),
        (-0.4, -0.2, 0.0),
        (0.3, -0.2, 0.0),
    ],
)
def test_retention_of_a_teacher_at_or_below_zero_is_zero(
    value: float, teacher: float, retention: float
) -> None:
    result = only(
        GateSettings(min_retention=0.01),
        Measurements(value=value, teacher=teacher),
        "min_retention",
    )
    assert result.measured == pytest.approx(retention)
    assert result.passed is (retention > 0)


def test_a_student_better_than_the_teacher_passes_every_comparison() -> None:
    better = replace(GOOD, value=0.95, teacher=0.9, student=0.94)
    assert all(result.passed for result in check_rules(ALL_RULES, "accuracy", better))
    assert only(ALL_RULES, better, "max_drop").measured == pytest.approx(-0.05)


@pytest.mark.parametrize(
    ("missing", "rule"),
    [
        ("baseline", "min_gain"),
        ("class_recalls", "min_class_recall"),
        ("student", "max_quantization_drop"),
        ("agreement", "min_agreement"),
        ("unknown", "max_unknown"),
        ("size_bytes", "max_size_bytes"),
        ("latency_ms", "max_latency_ms"),
    ],
)
def test_a_rule_without_a_measurement_is_left_out(missing: str, rule: str) -> None:
    everything = {result.rule for result in check_rules(ALL_RULES, "accuracy", GOOD)}
    without = replace(GOOD, **{missing: None})  # type: ignore[arg-type]
    assert {r.rule for r in check_rules(ALL_RULES, "accuracy", without)} == everything - {rule}


def test_a_measurement_of_zero_counts() -> None:
    zeros = replace(GOOD, baseline=0.0, student=0.0, size_bytes=0, latency_ms=0.0)
    assert len(check_rules(ALL_RULES, "accuracy", zeros)) == 10


def test_nan_fails() -> None:
    nothing = float("nan")
    others = [nothing] * 4
    measured = Measurements(*others, {"a": nothing}, nothing, nothing, 1, nothing)
    failed = {r.rule for r in check_rules(ALL_RULES, "accuracy", measured) if not r.passed}
    assert failed == {result.rule for result in check_rules(ALL_RULES, "accuracy", GOOD)} - {
        "max_size_bytes"
    }


def test_verdict_lines() -> None:
    settings = GateSettings(
        min_value=0.95,
        max_drop=0.1,
        min_retention=0.968,
        min_gain=0.05,
        min_class_recall=0.75,
        max_quantization_drop=0.01,
        min_agreement=0.95,
        max_unknown=0.02,
        max_size_bytes=14_000_000,
        max_latency_ms=5.0,
    )
    assert verdict_lines(check_rules(settings, "macro_f1", GOOD)) == [
        "FAIL  min_value: macro_f1 0.9000, required >= 0.95",
        "pass  max_drop: macro_f1 drop from the teacher 0.0200 (0.9200 - 0.9000), required <= 0.1",
        "pass  min_retention: macro_f1 retention 97.8 % (0.9000 / 0.9200), required >= 96.8 %",
        "pass  min_gain: macro_f1 gain over the undistilled student 0.1000 (0.9000 - 0.8000), "
        "required >= 0.05",
        "FAIL  min_class_recall: lowest recall of a class 0.7000 (cancel), required >= 0.75",
        "pass  max_quantization_drop: macro_f1 drop from the torch student 0.0000 "
        "(0.9000 - 0.9000), required <= 0.01",
        "pass  min_agreement: agreement with fp32: 98.0 %, required >= 95 %",
        "pass  max_unknown: share of [UNK] tokens 1.0 %, required <= 2 %",
        "FAIL  max_size_bytes: file size 14500000 bytes, required <= 14000000 bytes",
        "pass  max_latency_ms: p50 latency at the target shape 2.50 ms, required <= 5 ms",
    ]


def test_a_number_that_just_misses_its_limit_gets_more_decimals() -> None:
    measured = Measurements(value=0.92996, teacher=1.0, agreement=0.9796)
    settings = GateSettings(min_retention=0.93, min_agreement=0.98)
    assert [result.text for result in check_rules(settings, "accuracy", measured)] == [
        "min_retention: accuracy retention 92.996 % (0.9300 / 1.0000), required >= 93 %",
        "min_agreement: agreement with fp32: 97.96 %, required >= 98 %",
    ]


def test_require_raises_with_the_failed_rules_first() -> None:
    results = check_rules(ALL_RULES, "accuracy", replace(GOOD, latency_ms=9.0, value=0.79))
    with pytest.raises(GateFailedError) as caught:
        require("gate 1", results)
    error = caught.value
    assert error.exit_code == EXIT_GATE == 3
    assert error.headline == "gate 1 failed, nothing was published"
    marks = [line.partition("  ")[0] for line in error.problems]
    assert marks == sorted(marks)
    assert set(marks) == {"FAIL", "pass"}
    assert sorted(error.problems) == sorted(verdict_lines(results))
    assert error.verdicts == {"gate 1": [result.to_facts() for result in results]}
    assert "min_value: accuracy 0.7900, required >= 0.8" in str(error)


def test_any_failed_rule_fails_the_gate() -> None:
    results = check_rules(ALL_RULES, "accuracy", GOOD)
    require("gate 2", results)
    for position in range(len(results)):
        failed = [*results]
        failed[position] = replace(results[position], passed=False)
        with pytest.raises(GateFailedError):
            require("gate 2", failed)


def evaluation(accuracy: float, recalls: dict[str, tuple[float, float]]) -> Evaluation:
    """Scores on one split; recall and support per label."""
    scores = {"accuracy": Score(accuracy, 0.0, 1.0)}
    per_class = {
        label: LabelScore(precision=0.1, recall=recall, f1=0.2, support=support)
        for label, (recall, support) in recalls.items()
    }
    return Evaluation("dev", 4, scores, per_class, [])


def test_a_class_without_rows_has_no_recall() -> None:
    found = evaluation(0.9, {"a": (0.75, 4.0), "absent": (0.0, 0.0), "b": (0.0, 1.0)})
    assert class_recalls(found) == {"a": 0.75, "b": 0.0}


@pytest.mark.parametrize(("split", "expected"), [("dev", 0.8), ("test", 0.7)])
def test_gate_1_measures_on_the_gates_split(split: str, expected: float) -> None:
    changes = {"gate.split": split, "data.test": "test.tsv"}
    evaluations = {
        "teacher": {"dev": evaluation(0.9, {}), "test": evaluation(0.95, {})},
        "student": {
            "dev": evaluation(0.8, {"a": (0.6, 5.0)}),
            "test": evaluation(0.7, {"a": (0.5, 5.0)}),
        },
    }
    measured = measure_student(parse_recipe(recipe_tree(changes)), evaluations)
    assert measured.value == expected
    assert measured.teacher == (0.9 if split == "dev" else 0.95)
    assert measured.class_recalls == {"a": 0.6 if split == "dev" else 0.5}
    assert (measured.baseline, measured.student, measured.size_bytes) == (None, None, None)
    evaluations["baseline"] = {split: evaluation(0.55, {})}
    assert measure_student(parse_recipe(recipe_tree(changes)), evaluations).baseline == 0.55


SPAM = ("ham", "spam")


def test_settings_that_fit_the_labels() -> None:
    check_labels(GateSettings(metric="f1", positive_label="ham"), "f1", SPAM)
    check_labels(GateSettings(metric="macro_f1"), "macro_f1", ("a", "b", "c"))
    check_labels(GateSettings(metric="spearman"), "spearman", ("value",))


@pytest.mark.parametrize(
    ("settings", "labels", "message"),
    [
        ({"metric": "f1"}, ("a", "b", "c"), 'gate.metric:\n.*the data has 3; choose "macro_f1"'),
        (
            {"positive_label": "a"},
            ("a", "b", "c"),
            "gate.positive_label:\n.*two labels, this has 3",
        ),
        (
            {"metric": "f1", "positive_label": "Spam"},
            SPAM,
            "gate.positive_label:\n.*'Spam' is not one of the labels 'ham', 'spam'",
        ),
    ],
)
def test_settings_that_do_not_fit_the_labels(
    settings: dict[str, Any], labels: tuple[str, ...], message: str
) -> None:
    chosen = GateSettings(**settings)
    with pytest.raises(RecipeError, match=message):
        check_labels(chosen, chosen.metric or "accuracy", labels)
