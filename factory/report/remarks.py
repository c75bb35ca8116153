"""What a reader in a hurry should know before believing the numbers, as short sentences."""

from __future__ import annotations

from collections.abc import Sequence

from factory.report.facts import RunFacts
from factory.report.overview import ModelRow
from factory.report.quality import Quality
from factory.report.training import DataSection

FEW_ROWS = 300
FEW_OF_A_CLASS = 10
CUT_OFTEN = 0.05


def remarks(
    facts: RunFacts,
    rows: Sequence[ModelRow],
    quality: Quality | None,
    data: DataSection | None,
) -> list[str]:
    """The sentences that apply to this run, the weightiest first."""
    result = [*_leaks(data), *_interval(facts, rows), *_small(facts, quality)]
    tuned = facts.task == "multilabel" and facts.recipe["evaluate"]["thresholds"] == "tuned"
    if tuned and facts.split == "dev":
        result.append("The labels' thresholds were tuned on dev, which flatters every score there.")
    return result + _worst_class(quality) + _cut(facts, data)


def _leaks(data: DataSection | None) -> list[str]:
    if data is None:
        return []
    return [
        f"{count} inputs of {pair.partition('/')[2]} stand in {pair.partition('/')[0]} too: "
        "scores there may flatter."
        for pair, count in data.facts["duplicates_across"].items()
        if count > 0
    ]


def _interval(facts: RunFacts, rows: Sequence[ModelRow]) -> list[str]:
    """Whether the intervals of teacher and shipped model tell them apart."""
    by_model = {row.model: row for row in rows}
    shown = by_model.get(facts.served or "student")
    if shown is None:
        return []
    ours, taught = shown.scores[facts.split], by_model["teacher"].scores[facts.split]
    name = "served form" if facts.served else "student"
    if ours.low <= taught.high and taught.low <= ours.high:
        return [
            f"The 95 % intervals of {name} and teacher overlap: on these rows the two are not "
            "clearly apart."
        ]
    better = "above" if ours.low > taught.high else "below"
    return [f"The 95 % interval of the {name} lies {better} the teacher's."]


def _small(facts: RunFacts, quality: Quality | None) -> list[str]:
    rows = facts.rows.get(facts.split)
    result = []
    if rows is not None and rows < FEW_ROWS:
        result.append(f"{facts.split} has {rows} rows only: small differences mean little.")
    few = [] if quality is None else [r for r in quality.classes if r.support < FEW_OF_A_CLASS]
    if few and quality is not None:
        result.append(
            f"{len(few)} of {len(quality.classes)} classes have fewer than {FEW_OF_A_CLASS} rows "
            f"in {facts.split}; their numbers jump."
        )
    return result


def _worst_class(quality: Quality | None) -> list[str]:
    if quality is None or not quality.classes:
        return []
    worst = quality.classes[0]
    if worst.lost <= 0:
        return ["No class lost F1 to the teacher."]
    return [
        f"The class that lost most is {worst.label}: F1 {worst.teacher_f1:.3f} of the teacher, "
        f"{worst.student_f1:.3f} of the student, {worst.support} rows."
    ]


def _cut(facts: RunFacts, data: DataSection | None) -> list[str]:
    lengths = [] if data is None else data.lengths
    return [
        f"{100 * one.cut:.0f} % of the inputs of {one.split} are longer than {facts.max_length} "
        "tokens and were cut."
        for one in lengths
        if one.split == facts.split and one.cut >= CUT_OFTEN
    ]
