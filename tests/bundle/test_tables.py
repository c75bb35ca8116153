"""Tables and text of a model card, from a manifest whose numbers are all chosen."""

from __future__ import annotations

import pytest
from helpers.scored_bundle import rule, score, scored_manifest

from factory.bundle.measurements import RunMeasurements, read_measurements
from factory.bundle.model_card import card_text
from factory.bundle.tables import gate_lines, pareto_front, result_table
from serving.errors import BundleError

TABLE = """\
| model | accuracy on dev (95 %) | retention | size | p50 | p95 | Pareto front |
|---|---|---|---|---|---|---|
| teacher (torch) | 0.8000 (0.7500 to 0.8500) | 100.0 % | 90.8 MB | 30.00 ms | 60.00 ms |  |
| student (torch) | 0.7600 (0.7100 to 0.8100) | 95.0 % | 57.4 MB | 10.13 ms | 20.25 ms |  |
| student without distillation (torch) | 0.5000 (0.4500 to 0.5500) | 62.5 % | 57.4 MB | - | - |  |
| student, ONNX fp32 (served) | 0.7500 (0.7000 to 0.8000) | 93.8 % | 57.5 MB | 4.00 ms | 8.00 ms | yes |
| student, ONNX int8, per token | 0.7200 (0.6700 to 0.7700) | 90.0 % | 14.6 MB | 2.50 ms | 5.00 ms | yes |\
"""  # noqa: E501


def test_result_table() -> None:
    assert result_table(scored_manifest()) == TABLE


def test_another_split_is_compared_with_the_teacher_on_that_split() -> None:
    row = result_table(scored_manifest(), "test").splitlines()[3]
    assert row.startswith("| student (torch) | 0.5600 (0.5100 to 0.6100) | 93.3 % |")


def test_split_and_metric_of_the_gate_are_shown() -> None:
    changes = {"data.test": "test.tsv", "gate.split": "test", "gate.metric": "mcc"}
    scores = {"teacher": {"test": {"mcc": score(0.5)}}}
    head, _, first = result_table(scored_manifest(changes=changes, scores=scores)).splitlines()
    assert head.startswith("| model | mcc on test (95 %) |")
    assert first.startswith("| teacher (torch) | 0.5000 (")
    assert "| model | spearman on dev" in result_table(scored_manifest("regression"))


def test_no_retention_for_a_teacher_without_a_positive_score() -> None:
    scores = {"teacher": {"dev": {"accuracy": score(-0.2)}}}
    assert result_table(scored_manifest(scores=scores)).splitlines()[2].split(" | ")[2] == "-"


@pytest.mark.parametrize(
    ("last", "front"),
    [
        ((-0.75, 57, 4.0), "abc"),  # equal to a
        ((-0.71, 15, 2.6), "ab"),  # worse than b in everything
        ((-0.71, 13, 2.6), "abc"),  # the smallest
        ((-0.75, 13, 2.4), "c"),
    ],
)
def test_pareto_front(last: tuple[float, ...], front: str) -> None:
    costs = {"a": (-0.75, 57, 4.0), "b": (-0.72, 14, 2.5), "c": last}
    assert pareto_front(costs) == list(front)


def test_card_text() -> None:
    gate = [rule("min_value", 0.75, 0.5, passed=True), rule("max_drop", 0.05, 0.01, passed=False)]
    manifest = scored_manifest(gate=gate)
    lines = gate_lines(manifest)
    assert lines[1] == "FAIL  max_drop: something is 0.0500 < 0.01"
    card = card_text(manifest)
    for part in (
        "# mails\n",
        "A classification model for single texts",
        "- served file: `onnx/model.onnx` (fp32)",
        "- labels: ham, spam",
        "- maximum length: 64 tokens",
        "- version: `0a1b`",
        f"### dev (50 rows)\n\n{TABLE}",
        "### test (40 rows)\n\n" + result_table(manifest, "test"),
        "Latency: batch 1, one thread.",
        f"## Gate results\n\n- {lines[0]}\n- {lines[1]}",
        "Served form: fp32, the first of fp32 (recipe order) to pass gate 2.",
    ):
        assert part in card
    pairs = card_text(scored_manifest(text_pair=True, data={"rows": {"train": 1, "dev": 2}}))
    assert "for pairs of texts" in pairs
    assert "### test" not in pairs


@pytest.mark.parametrize(
    ("thresholds", "text"),
    [("tuned", "were tuned on dev"), (0.4, "when its probability is at least 0.4.")],
)
def test_multilabel_card_explains_its_thresholds(thresholds: float | str, text: str) -> None:
    changes = {"evaluate.thresholds": thresholds}
    assert text in card_text(scored_manifest("multilabel", changes, thresholds=[0.4, 0.6]))


def test_measurements_read_from_a_manifest() -> None:
    manifest = scored_manifest()
    measured = read_measurements(manifest)
    assert measured.latency["student"].p50_ms == 10.126
    assert measured.to_facts() == {**manifest.measurements, "scores": manifest.scores}
    empty = scored_manifest(scores={}, measurements={})
    assert read_measurements(empty) == RunMeasurements()
    wrong = scored_manifest(measurements={"latency": {"fp32": 3.0}})
    with pytest.raises(BundleError, match="mails: scores or measurements cannot be read"):
        read_measurements(wrong)
