"""The Markdown summary of a run, for a file and for the summary page of a GitHub job."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from factory.bundle.tables import result_table
from factory.report.ci.outcome import Outcome, Rule

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"


def summary(outcome: Outcome) -> str:
    """Gate result, gate rules, result table and bundle as Markdown."""
    parts = [f"## {outcome.name}: {_verdict(outcome)}"]
    for gate, rules in outcome.verdicts.items():
        parts.append(f"### {gate.capitalize()}\n\n{_rule_table(rules)}")
    missing = outcome.not_evaluated()
    if missing:
        parts.append(f"Not evaluated: {', '.join(f'`{name}`' for name in missing)}.")
    if outcome.error is not None and not outcome.gate_failed:
        parts.append(_as_code(str(outcome.error)))
    if outcome.manifest is not None:
        parts.append(f"### Results\n\n{result_table(outcome.manifest)}")
        choice = outcome.manifest.measurements.get("choice", "")
        parts.append(f"Served form: {outcome.manifest.model.variant}, {choice}.")
    if outcome.bundle is not None:
        parts.append(f"Bundle: `{outcome.bundle}`")
    parts.append(f"Took {_duration(outcome.seconds)}.")
    return "\n\n".join(parts) + "\n"


def append_step_summary(text: str) -> None:
    """Append a text to the summary page of the current GitHub job; elsewhere do nothing.

    GitHub names the file in `GITHUB_STEP_SUMMARY`; several steps may append to it.
    """
    file = os.environ.get(STEP_SUMMARY)
    if file:
        with Path(file).open("a", encoding="utf-8") as handle:
            handle.write(f"{text}\n")


def _verdict(outcome: Outcome) -> str:
    if outcome.bundle is not None:
        return "gate passed"
    return "gate failed, nothing published" if outcome.gate_failed else "stopped by an error"


def _rule_table(rules: Sequence[Rule]) -> str:
    """One row per rule, failed rules first."""
    rows = ["| | rule | measured | limit | |", "|---|---|---|---|---|"]
    for rule in sorted(rules, key=lambda rule: bool(rule["passed"])):
        text = str(rule["text"]).partition(": ")[2].replace("|", "\\|")
        mark = "pass" if rule["passed"] else "**FAIL**"
        rows.append(
            f"| {mark} | `{rule['rule']}` | {_number(rule['measured'])} "
            f"| {_number(rule['limit'])} | {text} |"
        )
    return "\n".join(rows)


def _number(value: float) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".") if abs(value) < 1000 else f"{value:.0f}"


def _as_code(text: str) -> str:
    """A code block with a fence longer than any in the text."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text}\n{fence}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
