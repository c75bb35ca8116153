"""The charts of the report: matplotlib figures as inline SVG in the colours of the page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from xml.sax.saxutils import escape

from factory.bundle.tables import pareto_front
from factory.report.curves import Lengths, Panel
from factory.report.errors import Reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Replaced by variables of the page's style sheet, which supports dark mode and print.
LAYER_COLOURS = tuple(f"layer-{number}" for number in range(1, 7))
NAMES = ("ink", "muted", "line", "paper", "teacher", "student", "baseline", "served", "gap")
COLOURS = {name: f"#0101{number:02x}" for number, name in enumerate((*NAMES, *LAYER_COLOURS))}
_VARIABLES = {value: f"var(--{name})" for name, value in COLOURS.items()}
# The cost axis is logarithmic if the highest cost is this many times the lowest.
WIDE = 4.0
LETTER = 15.0  # width and height of a letter, in pixels

Kind = Literal["teacher", "student", "baseline", "form", "served"]
_TITLE: dict[str, Any] = {"fontsize": 9, "loc": "left", "color": COLOURS["muted"], "pad": 3}
MARKERS = {"teacher": "D", "student": "s", "baseline": "^", "form": "o", "served": "o"}


@dataclass(frozen=True, slots=True)
class Point:
    """One model in a chart of metric against cost.

    Args:
        letter: of the model in the table.
        exported: whether it is a form that can be served; only forms are on the Pareto front.
    """

    letter: str
    kind: Kind
    cost: float
    value: float
    low: float
    high: float
    exported: bool


def cost_chart(points: Sequence[Point], cost: str, name: str, description: str) -> str:
    """Metric with its interval against a cost; the Pareto front of the forms is a stepped line."""
    with _drawing():
        figure, axes = _figure(3.1)
        high = max(point.cost for point in points)
        low = min(point.cost for point in points)
        if low > 0 and high / low > WIDE:
            _log_axis(axes, low, high)
        else:
            axes.set_xlim(0, high * 1.12)
        forms = {point.letter: (point.cost, -point.value) for point in points if point.exported}
        front = sorted(forms[letter] for letter in pareto_front(forms))
        if front:
            costs = [cost for cost, _ in front] + [axes.get_xlim()[1]]
            values = [-value for _, value in front] + [-front[-1][1]]
            axes.step(costs, values, where="post", color=COLOURS["served"], ls="--", lw=1.2)
        for point in points:
            colour = COLOURS["student"] if point.kind == "form" else COLOURS[point.kind]
            axes.plot([point.cost] * 2, [point.low, point.high], color=colour, lw=1, alpha=0.45)
            axes.plot(
                [point.cost],
                [point.value],
                MARKERS[point.kind],
                color=colour,
                ms=9 if point.kind == "served" else 6,
                mec=COLOURS["paper"],
            )
        axes.set_xlabel(cost)
        _letters(axes, points)
        return _inline_svg(figure, name, description)


def loss_chart(panel: Panel, name: str, description: str) -> str:
    """The curves of a panel: the values of one term, or every layer relative to its first value."""
    with _drawing():
        figure, axes = _figure(2.5)
        layered = any(curve.layer is not None for curve in panel.curves)
        count = len(panel.curves)
        for number, curve in enumerate(panel.curves):
            # from light to dark, spread over the layers
            place = round(number * (len(LAYER_COLOURS) - 1) / max(1, count - 1))
            colour = COLOURS[LAYER_COLOURS[place] if layered else "student"]
            values = curve.of_start if layered else curve.values
            axes.plot(curve.steps, values, color=colour, lw=1.6, label=f"layer {curve.layer}")
        if layered:
            axes.axhline(1.0, color=COLOURS["muted"], lw=0.8, ls=":")
            axes.legend(
                loc="lower left",
                bbox_to_anchor=(-0.02, 0.98),
                ncols=min(count, 6),
                fontsize=9,
                handlelength=1.0,
                columnspacing=0.9,
                handletextpad=0.4,
                labelcolor=COLOURS["ink"],
            )
        axes.set_ylim(0, axes.get_ylim()[1])
        axes.set_xlabel("steps")
        return _inline_svg(figure, name, description)


def reliability_chart(
    measured: Reliability, kind: Literal["teacher", "student"], name: str, description: str
) -> str:
    """Accuracy over predicted probability, and below it the share of rows in each bin."""
    with _drawing():
        figure, axes = _figure(3.5, bottom=0.38)
        below = figure.add_axes((0.11, 0.13, 0.85, 0.15))
        rows = sum(one.rows for one in measured.bins)
        width = 0.86 / len(measured.bins)
        for one in measured.bins:
            below.bar(one.lower, one.rows / rows, width, align="edge", color=COLOURS["muted"])
            if one.confidence is None or one.correct is None:
                continue
            axes.bar(one.lower, one.correct, width, align="edge", color=COLOURS[kind], alpha=0.75)
            ends = [one.lower, one.lower + width]
            axes.plot(ends, [one.confidence] * 2, color=COLOURS["ink"], lw=2)
        axes.plot([0, 1], [0, 1], color=COLOURS["muted"], lw=1, ls="--")
        axes.set_ylim(0, 1)
        below.set_xlabel("probability")
        for one_axes in (axes, below):
            one_axes.set_xlim(0, 1)
        axes.tick_params(labelbottom=False)
        top = max(one.rows for one in measured.bins) / rows
        below.set_yticks([0, top], ["0", f"{100 * top:.0f} %"])
        axes.set_title("accuracy", **_TITLE)
        below.set_title("rows", **_TITLE)
        return _inline_svg(figure, name, description)


def lengths_chart(lengths: Sequence[Lengths], limit: int, name: str, description: str) -> str:
    """Share of rows by tokens, one outline per split, and the maximum length."""
    colours = {"train": "muted", "dev": "teacher", "test": "student"}
    with _drawing():
        figure, axes = _figure(2.6)
        for one in lengths:
            colour = COLOURS[colours[one.split]]
            axes.stairs(one.shares, one.edges, color=colour, lw=1.6, label=one.split)
        if limit <= lengths[0].edges[-1]:
            axes.axvline(limit, color=COLOURS["gap"], lw=1.4, ls="--", label="maximum length")
        axes.set_xlim(0, lengths[0].edges[-1])
        axes.set_ylim(0, None)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
        axes.set_xlabel("tokens, including special tokens")
        axes.legend(fontsize=9, labelcolor=COLOURS["ink"])
        return _inline_svg(figure, name, description)


def numbers_chart(
    targets: Sequence[float],
    predictions: Sequence[float],
    kind: Literal["teacher", "student"],
    name: str,
    description: str,
) -> str:
    """Predictions over true values, one point per row."""
    with _drawing():
        figure, axes = _figure(3.4)
        axes.plot(targets, predictions, "o", color=COLOURS[kind], ms=3, alpha=0.35, mew=0)
        low, high = min(*targets, *predictions), max(*targets, *predictions)
        axes.plot([low, high], [low, high], color=COLOURS["ink"], lw=1, ls="--")
        axes.set_xlabel("true value")
        axes.set_ylabel("prediction")
        return _inline_svg(figure, name, description)


def _figure(height: float, bottom: float | None = None) -> tuple[Figure, Axes]:
    """A figure with one set of axes and room for the labels around it.

    Args:
        height: in inches.
        bottom: where the axes start, as a share of the height; None: above the labels.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, height))
    low = 0.46 / height if bottom is None else bottom
    axes = figure.add_axes((0.11, low, 0.85, 1 - low - 0.25 / height))
    return figure, axes


def _log_axis(axes: Axes, low: float, high: float) -> None:
    """A logarithmic axis with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.set_xlim(low / 1.35, high * 1.5)
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _letters(axes: Axes, points: Sequence[Point]) -> None:
    """Write a letter beside each point, where it overlaps no other letter or point."""
    transform = axes.transData.transform
    pixels = [tuple(map(float, transform((point.cost, point.value)))) for point in points]
    placed: list[tuple[float, float]] = []
    scale = 72 / axes.figure.dpi
    for (x, y), point in sorted(zip(pixels, points, strict=True), key=lambda one: one[1].value):
        others = [pixel for pixel in pixels if pixel != (x, y)]
        right, up = _free_place(x, y, placed, others)
        placed.append((x + right, y + up))
        arrow: dict[str, Any] | None = None
        if abs(up) > LETTER:
            arrow = {"arrowstyle": "-", "color": COLOURS["muted"], "lw": 0.6, "shrinkB": 2}
        axes.annotate(
            point.letter,
            (point.cost, point.value),
            xytext=(right * scale, up * scale),
            textcoords="offset points",
            ha="center",
            va="center",
            fontweight="bold",
            color=COLOURS["ink"],
            arrowprops=arrow,
        )


def _free_place(
    x: float, y: float, letters: Sequence[tuple[float, float]], points: Sequence[tuple[float, ...]]
) -> tuple[float, float]:
    """Offset of a letter from its point to a free position, in pixels."""
    for up in (0.0, LETTER, -LETTER, 2 * LETTER, -2 * LETTER, 3 * LETTER, -3 * LETTER):
        for right in (LETTER, -LETTER):
            taken = any(
                abs(x + right - px) < LETTER and abs(y + up - py) < LETTER - 1 for px, py in letters
            ) or any(
                abs(x + right - px) < 0.8 * LETTER and abs(y + up - py) < 0.8 * LETTER
                for px, py in points
            )
            if not taken:
                return right, up
    return LETTER, 0.0


@contextmanager
def _drawing() -> Iterator[None]:
    """The settings of all figures: text stays text, and `$` is not math."""
    import matplotlib

    settings: Any = {  # matplotlib's own type lists every setting
        "svg.fonttype": "none",
        "svg.hashsalt": "report",
        "text.parse_math": False,
        "font.family": ["sans-serif"],
        "font.size": 10.0,
        "axes.edgecolor": COLOURS["line"],
        "axes.labelcolor": COLOURS["muted"],
        "axes.linewidth": 1.0,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "grid.color": COLOURS["line"],
        "grid.linewidth": 0.8,
        "text.color": COLOURS["ink"],
        "xtick.color": COLOURS["line"],
        "ytick.color": COLOURS["line"],
        "xtick.labelcolor": COLOURS["muted"],
        "ytick.labelcolor": COLOURS["muted"],
        "ytick.major.size": 0.0,
        "legend.frameon": False,
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # ignore the user's matplotlibrc
        matplotlib.rcParams.update(settings)
        yield


def _inline_svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an `svg` element without fixed size, with unique ids and a description.

    Args:
        name: unique on the page; prefix of every id.
        description: the content of the chart as text, for screen readers.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # no reference needs them
    svg = re.sub(r'(\bid="|url\(#)', rf"\1{name}-", svg).replace('xlink:href="#', f'href="#{name}-')
    # the font family is the page's
    svg = re.sub(r"font-family: [^;\"]*;?", "", svg)
    svg = re.sub(r"font: [^;\"]*?([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r'(?<= d=")[^"]*', lambda path: _shorter(path[0]), svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    head = re.search(r"<svg[^>]*>", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert head is not None, "matplotlib writes it"
    assert box is not None, "matplotlib writes it"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {box[0]} role="img" class="chart" '
        f'aria-labelledby="{name}-title"><title id="{name}-title">{escape(description)}</title>'
        + svg[head.end() :]
    )


def _shorter(path: str) -> str:
    """Round coordinates to a hundredth of a point."""
    numbers = re.sub(r"-?\d+\.\d+", lambda match: f"{round(float(match[0]), 2):g}", path)
    return " ".join(numbers.split())
