"""Reports for continuous integration: JUnit XML and a Markdown summary, however a run ends."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from factory.bundle.tables import result_table
from factory.errors import GateFailedError
from factory.evaluation.gate import RULES
from factory.recipe.recipe import Recipe
from factory.runtime import distributed
from factory.runtime.progress import say
from factory.store import atomic_write
from serving.bundle import Manifest, read_manifest

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
# XML 1.0, production [2]: characters that a document must not contain, not even escaped.
FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
UNFINISHED = "the run did not finish: its process was killed, or is still running"

# The facts of a rule, as in `RuleResult.to_facts` and in the bundle's manifest.
Rule = Mapping[str, Any]


@dataclass(slots=True)
class Outcome:
    """The outcome of a run, from which both reports are written.

    Args:
        recipe_file: as given on the command line.
        recipe: None if it could not be read.
        bundle: the published directory, if any.
        verdicts: the facts of each rule, by gate and evaluated model.
        error: the error that stopped the run.
    """

    recipe_file: Path
    recipe: Recipe | None = None
    bundle: Path | None = None
    manifest: Manifest | None = None
    verdicts: Mapping[str, Sequence[Rule]] = field(default_factory=dict)
    error: Exception | None = None
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """The recipe's name, or the file's name if the recipe could not be read."""
        return self.recipe_file.stem if self.recipe is None else self.recipe.name

    @property
    def gate_failed(self) -> bool:
        """Whether the gate stopped the run."""
        return isinstance(self.error, GateFailedError)

    def not_evaluated(self) -> list[str]:
        """Rules of the recipe that were not evaluated because the run ended before."""
        if self.recipe is None or self.bundle is not None:
            return []
        evaluated = {str(rule["rule"]) for rules in self.verdicts.values() for rule in rules}
        wanted = (rule.key for rule in RULES if getattr(self.recipe.gate, rule.key) is not None)
        return [key for key in wanted if key not in evaluated]

    def publish(self, bundle: Path) -> None:
        """Record a bundle that was published, or found in the store.

        Raises:
            BundleError: its manifest cannot be read.
        """
        self.bundle, self.manifest = bundle, read_manifest(bundle)
        self.verdicts = {f"gate 2 ({self.manifest.model.form})": self.manifest.gate}

    def stop(self, error: Exception) -> None:
        """Record the error that ended the run; a failed gate includes its rules."""
        self.error = error
        if isinstance(error, GateFailedError):
            self.verdicts = error.verdicts


@contextlib.contextmanager
def reporting(
    recipe_file: Path, junit: Path | None = None, summary_file: Path | None = None
) -> Iterator[Outcome]:
    """Write the reports of a run inside this context, whether it succeeds or fails.

    The caller sets the outcome's recipe and bundle. A file that cannot be written raises before any
    work is done. Until the end, the files report an unfinished run. In a distributed run, only
    rank 0 writes.

    Args:
        junit: file for the JUnit XML; None: not written.
        summary_file: file for the Markdown; a GitHub job's summary page gets it in any case.

    Raises:
        OSError: a file cannot be written.
    """
    outcome = Outcome(recipe_file)
    if not distributed.from_environment().is_main:
        yield outcome
        return
    for file in (junit, summary_file):
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
    if junit is not None:
        with atomic_write(junit) as temporary:
            temporary.write_bytes(unfinished_xml(recipe_file.stem))
    if summary_file is not None:
        summary_file.write_text(f"## {recipe_file.stem}: not finished\n", encoding="utf-8")
    started = time.monotonic()
    try:
        yield outcome
    except Exception as error:
        outcome.seconds = time.monotonic() - started
        outcome.stop(error)
        try:
            _write(outcome, junit, summary_file)
        except OSError as unwritten:  # must not hide the run's error and exit code
            say(f"cannot write the reports: {unwritten}")
        raise
    outcome.seconds = time.monotonic() - started
    _write(outcome, junit, summary_file)


def _write(outcome: Outcome, junit: Path | None, summary_file: Path | None) -> None:
    if junit is not None:
        with atomic_write(junit) as temporary:
            temporary.write_bytes(junit_xml(outcome))
    text = summary(outcome)
    if summary_file is not None:
        summary_file.write_text(text, encoding="utf-8")
    # GitHub names the file in the environment; several steps of a job may append to it
    if step_summary := os.environ.get(STEP_SUMMARY):
        with Path(step_summary).open("a", encoding="utf-8") as handle:
            handle.write(f"{text}\n")


def junit_xml(outcome: Outcome) -> bytes:
    """The JUnit document: one test suite with one case per gate and rule.

    A failed rule is a `failure`, a rule that was not evaluated is `skipped`. Any other error (in
    the recipe, data or training) is an `error` of the case `run`.
    """
    suite = ElementTree.Element("testsuite", {"name": _clean(outcome.name)})
    for gate, rules in outcome.verdicts.items():
        for rule in rules:
            case = _add_case(suite, gate, str(rule["rule"]))
            if rule["passed"]:
                ElementTree.SubElement(case, "system-out").text = _clean(str(rule["text"]))
            else:
                numbers = f"measured: {rule['measured']:.10g}\nlimit: {rule['limit']:.10g}"
                _add_problem(case, "failure", "GateRule", f"{rule['text']}\n{numbers}")
    for name in outcome.not_evaluated():
        case = _add_case(suite, "gate", name)
        ElementTree.SubElement(case, "skipped", {"message": "not evaluated: the run ended before"})
    run = _add_case(suite, "factory", "run")
    run.set("time", f"{outcome.seconds:.3f}")
    if outcome.error is not None and not outcome.gate_failed:
        _add_problem(run, "error", type(outcome.error).__name__, str(outcome.error))
    if outcome.bundle is not None:
        ElementTree.SubElement(run, "system-out").text = _clean(f"bundle: {outcome.bundle}")
    return _document(suite, outcome.seconds)


def unfinished_xml(name: str) -> bytes:
    """The JUnit document until the run ends, so that a killed run does not look successful."""
    suite = ElementTree.Element("testsuite", {"name": _clean(name)})
    _add_problem(_add_case(suite, "factory", "run"), "error", "Unfinished", UNFINISHED)
    return _document(suite, 0.0)


def _add_case(suite: ElementTree.Element, group: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(
        suite, "testcase", {"classname": _clean(group), "name": name, "time": "0"}
    )


def _add_problem(case: ElementTree.Element, tag: str, kind: str, text: str) -> None:
    first = _clean(text.partition("\n")[0])
    problem = ElementTree.SubElement(case, tag, {"type": kind, "message": first})
    problem.text = _clean(text)


def _document(suite: ElementTree.Element, seconds: float) -> bytes:
    """The suite with its counts, under the root element that GitLab, Jenkins and GitHub read."""
    counts = {
        "tests": len(suite),
        "failures": len(suite.findall("testcase/failure")),
        "errors": len(suite.findall("testcase/error")),
        "skipped": len(suite.findall("testcase/skipped")),
    }
    for name, count in counts.items():
        suite.set(name, str(count))
    suite.set("time", f"{seconds:.3f}")
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _clean(text: str) -> str:
    return FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)


def summary(outcome: Outcome) -> str:
    """Gate result, gate rules, result table and bundle as Markdown."""
    verdict = "stopped by an error"
    if outcome.bundle is not None:
        verdict = "gate passed"
    elif outcome.gate_failed:
        verdict = "gate failed, nothing published"
    parts = [f"## {outcome.name}: {verdict}"]
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
        parts.append(f"Served form: {outcome.manifest.model.form}, {choice}.")
        parts.append(f"Bundle: `{outcome.bundle}`")
    minutes, seconds = divmod(round(outcome.seconds), 60)
    parts.append(f"Took {minutes} min {seconds} s.")
    return "\n\n".join(parts) + "\n"


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
