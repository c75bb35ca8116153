"""Write the reports of a run for continuous integration, however the run ends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from factory.recipe.recipe import Recipe
from factory.report.ci.junit import junit_xml, unfinished_xml, write_junit
from factory.report.ci.outcome import Outcome, published, stopped
from factory.report.ci.summary import append_step_summary, summary
from factory.runtime import distributed as processes
from factory.runtime.progress import say


@dataclass(slots=True)
class RunReport:
    """What is known of a run so far; the reports are written from it."""

    recipe: Recipe | None = None
    bundle: Path | None = None


@contextlib.contextmanager
def reporting(
    recipe_file: Path, junit: Path | None = None, summary_file: Path | None = None
) -> Iterator[RunReport]:
    """Write the reports of a run inside this context, whether it succeeds or fails.

    A file that cannot be written raises before any work is done. Until the end, the JUnit file
    reports an unfinished run. Of several processes started together, only the first writes.

    Args:
        junit: file for the JUnit XML; None: not written.
        summary_file: file for the Markdown; a GitHub job's summary page gets it in any case.

    Raises:
        OSError: a file cannot be written.
    """
    report = RunReport()
    if not processes.from_environment().first:
        yield report
        return
    for file in (junit, summary_file):
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
    if junit is not None:
        write_junit(junit, unfinished_xml(recipe_file.stem))
    if summary_file is not None:
        summary_file.write_text(f"## {recipe_file.stem}: not finished\n", encoding="utf-8")
    started = time.monotonic()
    try:
        yield report
    except Exception as error:
        seconds = time.monotonic() - started
        try:
            _write(stopped(recipe_file, report.recipe, error, seconds), junit, summary_file)
        except OSError as unwritten:  # must not hide the run's error and exit code
            say(f"cannot write the reports: {unwritten}")
        raise
    if report.recipe is not None and report.bundle is not None:
        seconds = time.monotonic() - started
        outcome = published(recipe_file, report.recipe, report.bundle, seconds)
        _write(outcome, junit, summary_file)


def _write(outcome: Outcome, junit: Path | None, summary_file: Path | None) -> None:
    if junit is not None:
        write_junit(junit, junit_xml(outcome))
    text = summary(outcome)
    if summary_file is not None:
        summary_file.write_text(text, encoding="utf-8")
    append_step_summary(text)
