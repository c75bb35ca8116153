"""The facts of a run to one self-contained HTML page."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING

from factory.report.facts import RunFacts
from factory.report.overview import cost_pictures, key_figures, model_rows, summary
from factory.report.quality import measure_quality
from factory.report.remarks import remarks
from factory.report.training import (
    data_section,
    layer_map,
    lesson,
    loss_pictures,
    recipe_lines,
    stage_rows,
)
from factory.version import VERSION

if TYPE_CHECKING:
    from jinja2 import Environment

CHARACTERS_SHOWN = 400
NOTHING = "\N{EN DASH}"


def render_page(facts: RunFacts, texts: int) -> str:
    """The page of a run.

    Args:
        texts: how many texts to show on which the models disagree; 0 leaves all texts out.
    """
    rows = model_rows(facts)
    quality = measure_quality(facts, texts)
    data = data_section(facts)
    splits = [split for split in ("dev", "test") if split in facts.scores["teacher"]]
    stages = stage_rows(facts)
    agreement = facts.measurements.get("label_agreement_with_fp32", {}).get(facts.served, {})
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            version=VERSION,
            style=_style(),
            facts=facts,
            summary=summary(facts),
            figures=key_figures(facts, rows),
            remarks=remarks(facts, rows, quality, data),
            rows=rows,
            splits=splits,
            metrics=[name for name in facts.scores["teacher"][facts.split] if name != "rows"],
            costs=cost_pictures(facts, rows),
            quality=quality,
            served_agreement=agreement.get(facts.split) if facts.task != "regression" else None,
            texts=texts,
            data=data,
            layers=layer_map(facts),
            pictures=loss_pictures(facts),
            lesson=lesson(facts),
            stages=stages,
            total_seconds=sum(stage.seconds for stage in stages),
            recipe=recipe_lines(facts.recipe),
        )
    )


@functools.cache
def _environment() -> Environment:
    """Everything a template prints is escaped, unless it is one of our own drawings."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
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
    """Seconds as people say them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def clipped(text: str) -> str:
    """A text, or its beginning."""
    return text if len(text) <= CHARACTERS_SHOWN else f"{text[:CHARACTERS_SHOWN]}…"


def breakable(label: str) -> str:
    """A label, escaped, that may be broken behind the marks that join words."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"(?<=\w)([_./-])(?=[^\W\d])", r"\1<wbr>", str(escape(label))))


def signed(number: float) -> str:
    """A difference with three decimals; plus and minus are equally wide, zero has neither."""
    shown = f"{number:+.3f}".replace("-", "\N{MINUS SIGN}")
    return "0.000" if shown[1:] == "0.000" else shown


def _style() -> str:
    from markupsafe import Markup

    return Markup((Path(__file__).parent / "page.css").read_text(encoding="utf-8"))
