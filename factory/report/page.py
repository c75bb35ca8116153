"""Write `report.html`, one self-contained page about a run that passed or failed its gates."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING

from factory.bundle.measurements import GATE_FAILURE_FILE
from factory.errors import StoreError
from factory.report.facts import RunFacts, bundle_facts, failed_facts, report_folder
from factory.report.overview import cost_charts, key_figures, model_rows, remarks, summary
from factory.report.quality import compare_models
from factory.report.training import (
    data_section,
    layer_map,
    loss_charts,
    recipe_lines,
    training_lines,
)
from factory.store import Store, atomic_write, directory_name
from factory.version import VERSION

if TYPE_CHECKING:
    from jinja2 import Environment

    from factory.planning import RunPlan

FOLDER = Path(__file__).parent
PAGE_FILE = "report.html"
CHARACTERS_SHOWN = 400
NOTHING = "\N{EN DASH}"


def report_bundle(bundle: Path, texts: int | None = None, output: Path | None = None) -> Path:
    """Write the report of a finished run; returns its path.

    Args:
        texts: how many texts to show; None: as in the bundle's recipe.
        output: the file; None: `report-FINGERPRINT/report.html` beside the bundle.

    Raises:
        BundleError: no readable manifest.
    """
    facts = bundle_facts(bundle)
    folder = bundle.resolve().parent / directory_name("report", facts.fingerprint)
    if output is None:  # left by a run of the same recipe that failed
        (folder / GATE_FAILURE_FILE).unlink(missing_ok=True)
    return _write(facts, texts, output or folder / PAGE_FILE)


def report_recipe(
    plan: RunPlan, store: Store, texts: int | None = None, output: Path | None = None
) -> Path:
    """Write the report of a recipe's last run, passed or failed; returns its path.

    Raises:
        StoreError: no run of the recipe in this store reached a gate.
    """
    evaluate, bundle = plan.keys["evaluate"], plan.keys["bundle"]
    if store.status(bundle) == "cached":
        texts = plan.recipe.report.texts if texts is None else texts
        return report_bundle(store.directory(bundle), texts, output)
    if store.status(evaluate) != "cached":
        raise StoreError(
            f"{store.root}: no run of this recipe reached a gate; `factory plan` shows which "
            "stages are finished, `factory run` makes the others"
        )
    facts = failed_facts(plan.recipe, evaluate, bundle, store)
    return _write(facts, texts, output or report_folder(store, bundle) / PAGE_FILE)


def _write(facts: RunFacts, texts: int | None, file: Path) -> Path:
    page = render_page(facts, facts.recipe.report.texts if texts is None else texts)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return file


def render_page(facts: RunFacts, texts: int) -> str:
    """The HTML of the report.

    Args:
        texts: how many texts to show on which the models disagree; 0 leaves all texts out.
    """
    scores = facts.measurements.scores
    rows = model_rows(facts)
    quality = compare_models(facts, texts)
    data = data_section(facts)
    seconds = [stage.record["seconds"] for stage in facts.stages]
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            version=VERSION,
            style=(FOLDER / "page.css").read_text(encoding="utf-8"),
            facts=facts,
            recipe=facts.recipe,
            measured=facts.measurements,
            summary=summary(facts),
            figures=key_figures(facts, rows),
            remarks=remarks(facts, quality, data),
            rows=rows,
            splits=[split for split in ("dev", "test") if split in scores["teacher"]],
            metrics=list(scores["teacher"][facts.split]),
            costs=cost_charts(facts, rows),
            quality=quality,
            texts=texts,
            data=data,
            layers=layer_map(facts),
            losses=loss_charts(facts),
            training=training_lines(facts),
            total_seconds=sum(seconds),
            longest_seconds=max(seconds, default=0) or 1,
            recipe_lines=recipe_lines(facts.recipe),
        )
    )


@functools.cache
def _environment() -> Environment:
    """Jinja with the filters of the template; it escapes everything except our own drawings."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined
    )
    environment.filters |= {
        "percent": lambda share: (
            NOTHING if share is None else f"{100 * share:.1f}\N{NO-BREAK SPACE}%"
        ),
        "megabytes": lambda size: NOTHING if size is None else f"{size / 1e6:.1f} MB",
        "millions": lambda number: NOTHING if number is None else f"{number / 1e6:.1f} M",
        "milliseconds": lambda time: NOTHING if time is None else f"{time:.2f} ms",
        "count": lambda number: f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}"),
        "plain": lambda number: f"{number:.4f}" if abs(number) < 1000 else f"{number:.0f}",
        "duration": duration,
        "clipped": clipped,
        "breakable": breakable,
        "signed": signed,
    }
    return environment


def duration(seconds: float) -> str:
    """Seconds as hours, minutes and seconds."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def clipped(text: str) -> str:
    """A text, or its beginning if it is long."""
    return text if len(text) <= CHARACTERS_SHOWN else f"{text[:CHARACTERS_SHOWN]}…"


def breakable(label: str) -> str:
    """An escaped label with line break opportunities after the characters that join words."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"(?<=\w)([_./-])(?=[^\W\d])", r"\1<wbr>", str(escape(label))))


def signed(number: float) -> str:
    """A difference with three decimals and a sign; zero has none."""
    shown = f"{number:+.3f}".replace("-", "\N{MINUS SIGN}")
    return "0.000" if shown[1:] == "0.000" else shown
