"""The tables people read, from a manifest whose numbers are all chosen here."""

from __future__ import annotations

from typing import Any

import pytest

from factory.bundle.measurements import RunMeasurements, read_measurements
from factory.bundle.model_card import card_text
from factory.bundle.tables import gate_lines, pareto_front, result_table
from serving.bundle import Manifest, ModelFile
from serving.errors import BundleError


def score(value: float) -> dict[str, Any]:
    """A metric with an interval of a tenth around it."""
    return {"value": value, "low": value - 0.05, "high": value + 0.05}


def manifest(**changes: Any) -> Manifest:
    """A classification bundle with dev and test."""
    values = {"teacher": 0.8, "student": 0.76, "baseline": 0.5, "fp32": 0.75, "int8-rows": 0.72}
    fields: dict[str, Any] = {
        "name": "mails",
        "version": "0a1b",
        "task": "classification",
        "labels": ["ham", "spam"],
        "text_pair": False,
        "max_length": 64,
        "model": ModelFile(
            file="onnx/model_quantized.onnx",
            variant="int8-rows",
            inputs=["input_ids"],
            output="logits",
            opset=17,
            neighbour_independent=True,
        ),
        "files": {},
        "scores": {
            name: {
                "dev": {"accuracy": score(value), "mcc": score(value - 0.1)},
                "test": {"accuracy": score(value - 0.2), "mcc": score(value - 0.3)},
            }
            for name, value in values.items()
        },
        "measurements": {
            "size_bytes": {
                "teacher": 90_800_000,
                "student": 57_400_000,
                "baseline": 57_400_000,
                "fp32": 57_500_000,
                "int8-rows": 14_649_999,
            },
            "latency": {
                name: {"p50_ms": milliseconds, "p95_ms": 2 * milliseconds, "calls": 120}
                for name, milliseconds in (
                    ("teacher", 30.0),
                    ("student", 10.126),
                    ("fp32", 4.0),
                    ("int8-rows", 2.5),
                )
            },
            "latency_conditions": "batch 1, one thread",
            "choice": "the first of int8-rows, fp32 (recipe order) to pass gate 2",
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
        "| model | accuracy on dev (95 %) | retention | size | p50 | p95 | Pareto front |\n"
        "|---|---|---|---|---|---|---|\n"
        "| teacher (torch) | 0.8000 (0.7500 to 0.8500) | 100.0 % | 90.8 MB "
        "| 30.00 ms | 60.00 ms |  |\n"
        "| student (torch) | 0.7600 (0.7100 to 0.8100) | 95.0 % | 57.4 MB "
        "| 10.13 ms | 20.25 ms |  |\n"
        "| student without distillation (torch) | 0.5000 (0.4500 to 0.5500) | 62.5 % | 57.4 MB "
        "| - | - |  |\n"
        "| student, ONNX fp32 | 0.7500 (0.7000 to 0.8000) | 93.8 % | 57.5 MB "
        "| 4.00 ms | 8.00 ms | yes |\n"
        "| student, ONNX int8, per token (served) | 0.7200 (0.6700 to 0.7700) | 90.0 % | 14.6 MB "
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
    scores = {"teacher": {"dev": {"spearman": score(0.9), "pearson": score(0.1)}}}
    found = result_table(manifest(task="regression", labels=["value"], scores=scores))
    assert found.splitlines()[0].startswith("| model | spearman on dev")
    assert "| 0.9000 (" in found


@pytest.mark.parametrize("value", [0.0, -0.2])
def test_no_retention_for_a_teacher_without_a_positive_score(value: float) -> None:
    scores = {"teacher": {"dev": {"accuracy": score(value)}}}
    assert result_table(manifest(scores=scores)).splitlines()[2].split(" | ")[2] == "-"


@pytest.mark.parametrize(
    ("costs", "front"),
    [
        ({"a": (-0.75, 57, 4.0), "b": (-0.72, 14, 2.5), "c": (-0.75, 57, 4.0)}, "abc"),
        ({"a": (-0.75, 57, 4.0), "b": (-0.72, 14, 2.5), "c": (-0.71, 15, 2.6)}, "ab"),
        ({"a": (-0.75, 57, 4.0), "b": (-0.72, 14, 2.5), "c": (-0.71, 13, 2.6)}, "abc"),
        ({"a": (-0.75, 57, 4.0), "b": (-0.72, 14, 2.5), "c": (-0.75, 13, 2.4)}, "c"),
        ({}, ""),
    ],
)
def test_the_pareto_front(costs: dict[str, tuple[float, ...]], front: str) -> None:
    """Equal ones stay; c is beaten in everything, the smallest, or beats both."""
    assert pareto_front(costs) == list(front)


def test_gate_lines() -> None:
    assert gate_lines(manifest()) == ["pass  min_value: enough", "FAIL  max_drop: too much"]


def test_the_card_holds_what_a_user_needs() -> None:
    card = card_text(manifest())
    for part in (
        "# mails\n",
        "A classification model for single texts",
        "- served file: `onnx/model_quantized.onnx` (int8-rows)",
        "- labels: ham, spam",
        "- maximum length: 64 tokens",
        "- version: `0a1b`",
        "### dev (50 rows)\n\n" + result_table(manifest(), "dev"),
        "### test (40 rows)\n\n" + result_table(manifest(), "test"),
        "Latency: batch 1, one thread.",
        "## Gate results\n\n- pass  min_value: enough\n- FAIL  max_drop: too much",
        "Served form: int8-rows, the first of int8-rows, fp32 (recipe order) to pass gate 2.",
    ):
        assert part in card


def test_the_card_without_test_rows_and_for_pairs() -> None:
    card = card_text(manifest(text_pair=True, data={"rows": {"train": 1, "dev": 2}}))
    assert "for pairs of texts" in card
    assert "### dev (2 rows)" in card
    assert "### test" not in card


def test_measurements_survive_the_manifest() -> None:
    measured = read_measurements(manifest())
    assert measured.latency["student"].p50_ms == 10.126
    facts = measured.to_facts()
    assert facts.pop("scores") == manifest().scores
    assert facts == manifest().measurements
    assert read_measurements(manifest(scores={}, measurements={})) == RunMeasurements()


def test_other_measurements_are_an_error_and_not_a_traceback() -> None:
    with pytest.raises(BundleError, match="mails: scores or measurements cannot be read"):
        read_measurements(manifest(measurements={"latency": {"fp32": 3.0}}))
