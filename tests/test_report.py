"""The tables people read, from a manifest whose numbers are all chosen here."""

from __future__ import annotations

from typing import Any

import pytest

from factory.report.tables import gate_lines, model_card, pareto_front, result_table
from serving.bundle import Manifest, ModelFile


def score(value: float) -> dict[str, Any]:
    """A metric with an interval of a tenth around it."""
    return {"value": value, "low": value - 0.05, "high": value + 0.05}


def manifest(**changes: Any) -> Manifest:
    """A classification bundle with dev and test."""
    values = {"teacher": 0.8, "student": 0.76, "baseline": 0.5, "fp32": 0.75, "int8-static": 0.72}
    fields: dict[str, Any] = {
        "name": "mails",
        "version": "0a1b",
        "task": "classification",
        "labels": ["ham", "spam"],
        "text_pair": False,
        "max_length": 64,
        "model": ModelFile(
            file="onnx/model_quantized.onnx",
            variant="int8-static",
            inputs=["input_ids"],
            output="logits",
            opset=17,
            neighbour_independent=False,
        ),
        "files": {},
        "scores": {
            name: {
                "dev": {"rows": 50, "accuracy": score(value), "mcc": score(value - 0.1)},
                "test": {"rows": 40, "accuracy": score(value - 0.2), "mcc": score(value - 0.3)},
            }
            for name, value in values.items()
        },
        "measurements": {
            "size_bytes": {
                "teacher": 90_800_000,
                "student": 57_400_000,
                "baseline": 57_400_000,
                "fp32": 57_500_000,
                "int8-static": 14_649_999,
            },
            "latency": {
                name: {"p50_ms": milliseconds, "p95_ms": 2 * milliseconds, "calls": 120}
                for name, milliseconds in (
                    ("teacher", 30.0),
                    ("student", 10.126),
                    ("fp32", 4.0),
                    ("int8-static", 2.5),
                )
            },
            "latency_conditions": "batch 1, one thread",
            "choice": "int8-static: the first of int8-static, fp32",
        },
        "gate": [
            {"rule": "min_value", "passed": True, "text": "min_value: enough"},
            {"rule": "max_drop", "passed": False, "text": "max_drop: too much"},
        ],
        "recipe": {"gate": {"split": "dev", "metric": None}},
        "data": {"rows": {"train": 100, "dev": 50, "test": 40}},
    }
    return Manifest(**{**fields, **changes})


def test_result_table_to_the_letter() -> None:
    assert result_table(manifest()) == (
        "| model | accuracy on dev (95 %) | kept of teacher | size | p50 | p95 | front |\n"
        "|---|---|---|---|---|---|---|\n"
        "| teacher (torch) | 0.8000 (0.7500 to 0.8500) | 100.0 % | 90.8 MB "
        "| 30.00 ms | 60.00 ms |  |\n"
        "| student (torch) | 0.7600 (0.7100 to 0.8100) | 95.0 % | 57.4 MB "
        "| 10.13 ms | 20.25 ms |  |\n"
        "| student without distillation (torch) | 0.5000 (0.4500 to 0.5500) | 62.5 % | 57.4 MB "
        "| - | - |  |\n"
        "| student, ONNX fp32 | 0.7500 (0.7000 to 0.8000) | 93.8 % | 57.5 MB "
        "| 4.00 ms | 8.00 ms | yes |\n"
        "| student, ONNX int8, static (served) | 0.7200 (0.6700 to 0.7700) | 90.0 % | 14.6 MB "
        "| 2.50 ms | 5.00 ms | yes |"
    )


def test_another_split_compares_with_the_teacher_there() -> None:
    row = result_table(manifest(), "test").splitlines()[3]
    assert row.startswith("| student (torch) | 0.5600 (0.5100 to 0.6100) | 93.3 % |")


def test_the_gates_split_and_metric_are_shown() -> None:
    recipe = {"gate": {"split": "test", "metric": "mcc"}}
    head, _, first, *_ = result_table(manifest(recipe=recipe)).splitlines()
    assert head.startswith("| model | mcc on test (95 %) |")
    assert first.startswith("| teacher (torch) | 0.5000 (")


def test_regression_shows_spearman() -> None:
    scores = {"teacher": {"dev": {"rows": 9, "spearman": score(0.9), "pearson": score(0.1)}}}
    found = result_table(manifest(task="regression", labels=["value"], scores=scores))
    assert found.splitlines()[0].startswith("| model | spearman on dev")
    assert "| 0.9000 (" in found


@pytest.mark.parametrize("value", [0.0, -0.2])
def test_a_teacher_without_a_positive_score_keeps_no_share(value: float) -> None:
    scores = {"teacher": {"dev": {"rows": 9, "accuracy": score(value)}}}
    assert result_table(manifest(scores=scores)).splitlines()[2].split(" | ")[2] == "-"


@pytest.mark.parametrize(
    ("accuracy", "size_bytes", "p50_ms", "front"),
    [
        (0.75, 57_500_000, 4.0, ["fp32", "int8-static", "int4"]),  # two alike, none better
        (0.71, 14_700_000, 2.6, ["fp32", "int8-static"]),  # int8 beats it in everything
        (0.71, 14_600_000, 2.6, ["fp32", "int8-static", "int4"]),  # the smallest
        (0.75, 14_000_000, 2.4, ["int4"]),  # beats both
        (0.74, 57_500_000, 4.0, ["fp32", "int8-static"]),  # fp32 is as small and fast, and better
    ],
)
def test_the_front_holds_what_nothing_beats(
    accuracy: float, size_bytes: int, p50_ms: float, front: list[str]
) -> None:
    given = manifest()
    given.scores["int4"] = {"dev": {"rows": 50, "accuracy": score(accuracy)}}
    given.measurements["size_bytes"]["int4"] = size_bytes
    given.measurements["latency"]["int4"] = {"p50_ms": p50_ms, "p95_ms": 9.0, "calls": 9}
    assert pareto_front(given, "dev") == front


def test_gate_lines() -> None:
    assert gate_lines(manifest()) == ["pass  min_value: enough", "FAIL  max_drop: too much"]


def test_model_card_holds_what_a_user_needs() -> None:
    card = model_card(manifest())
    for part in (
        "# mails\n",
        "A classification model for single texts",
        "- served file: `onnx/model_quantized.onnx` (int8-static)",
        "- labels: ham, spam",
        "- at most 64 tokens per input",
        "- version: `0a1b`",
        "### dev (50 rows)\n\n" + result_table(manifest(), "dev"),
        "### test (40 rows)\n\n" + result_table(manifest(), "test"),
        "Latency: batch 1, one thread.",
        "- pass  min_value: enough\n- FAIL  max_drop: too much",
        "Served form: int8-static: the first of int8-static, fp32.",
    ):
        assert part in card


def test_model_card_without_test_rows_and_for_pairs() -> None:
    card = model_card(manifest(text_pair=True, data={"rows": {"train": 1, "dev": 2}}))
    assert "for pairs of texts" in card
    assert "### dev (2 rows)" in card
    assert "### test" not in card
