"""JUnit XML of a run: one test case per gate rule, readable by every CI system."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from factory.report.ci.outcome import Outcome, Rule

# XML 1.0, production [2]: characters that a document must not contain, not even escaped.
FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
UNFINISHED = "the run did not finish: its process was killed, or is still running"


def junit_xml(outcome: Outcome) -> bytes:
    """The document: one test suite with one case per gate and rule.

    A failed rule is a `failure`, a rule that was not evaluated is `skipped`. Any other error (in
    the recipe, data or training) is an `error` of the case `run`, so that the report is red.
    """
    suite = ElementTree.Element("testsuite", {"name": _clean(outcome.name)})
    for gate, rules in outcome.verdicts.items():
        for rule in rules:
            _add_rule(suite, gate, rule)
    for name in outcome.not_evaluated():
        case = _add_case(suite, "gate", name)
        ElementTree.SubElement(case, "skipped", {"message": "not evaluated: the run ended before"})
    run = _add_case(suite, "factory", "run")
    run.set("time", f"{outcome.seconds:.3f}")
    if outcome.error is not None and not outcome.gate_failed:
        _add_problem(run, "error", type(outcome.error).__name__, str(outcome.error))
    if outcome.bundle is not None:
        _add_text(run, "system-out", f"bundle: {outcome.bundle}")
    return _document(suite, outcome.seconds)


def unfinished_xml(name: str) -> bytes:
    """The document until the run ends, so that a killed run does not look successful."""
    suite = ElementTree.Element("testsuite", {"name": _clean(name)})
    _add_problem(_add_case(suite, "factory", "run"), "error", "Unfinished", UNFINISHED)
    return _document(suite, 0.0)


def write_junit(file: Path, document: bytes) -> None:
    """Write the document atomically."""
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_bytes(document)
    temporary.replace(file)


def _add_rule(suite: ElementTree.Element, gate: str, rule: Rule) -> None:
    case = _add_case(suite, gate, str(rule["rule"]))
    if rule["passed"]:
        _add_text(case, "system-out", str(rule["text"]))
        return
    numbers = f"measured: {rule['measured']:.10g}\nlimit: {rule['limit']:.10g}"
    _add_problem(case, "failure", "GateRule", f"{rule['text']}\n{numbers}")


def _add_case(suite: ElementTree.Element, group: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(
        suite, "testcase", {"classname": _clean(group), "name": name, "time": "0"}
    )


def _add_problem(case: ElementTree.Element, tag: str, kind: str, text: str) -> None:
    first = _clean(text.partition("\n")[0])
    problem = ElementTree.SubElement(case, tag, {"type": kind, "message": first})
    problem.text = _clean(text)


def _add_text(case: ElementTree.Element, tag: str, text: str) -> None:
    ElementTree.SubElement(case, tag).text = _clean(text)


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
