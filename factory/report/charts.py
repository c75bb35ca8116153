"""The pictures of the page, each one figure drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from factory.report.curves import Panel
from factory.report.data_lengths import Lengths
from factory.report.reliability import Reliability
from factory.report.svg import COLOURS, drawing, inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INCHES = (4.6, 3.1)
LAYER_COLOURS = 6
# A factor between the cheapest and the dearest from which a plain axis hides the cheap ones.
WIDE = 4.0
LETTER = 15.0  # pixels that a letter of the pictures takes

Kind = Literal["teacher", "student", "baseline", "form", "served"]
_TITLE: dict[str, Any] = {"fontsize": 9, "loc": "left", "color": COLOURS["muted"], "pad": 3}
MARKERS = {"teacher": "D", "student": "s", "baseline": "^", "form": "o", "served": "o"}


@dataclass(frozen=True, slots=True)
class Point:
    """One model in a picture of metric against cost.

    Args:
        letter: what the table calls it.
        exported: whether it is a form that can be served; only these make the front.
    """

    letter: str
    kind: Kind
    cost: float
    value: float
    low: float
    high: float
    exported: bool


def front_of(points: Sequence[Point]) -> list[Point]:
    """The exported forms that no cheaper or equally cheap one matches or beats, cheapest first."""
    front: list[Point] = []
    exported = (point for point in points if point.exported)
    for point in sorted(exported, key=lambda point: (point.cost, -point.value)):
        if not front or point.value > front[-1].value:
            front.append(point)
    return front


def cost_chart(points: Sequence[Point], cost: str, name: str, description: str) -> str:
    """Metric with its interval against a cost, the exported forms' front as a stepped line."""
    with drawing():
        figure, axes = _figure()
        dear = max(point.cost for point in points)
        cheap = min(point.cost for point in points)
        if cheap > 0 and dear / cheap > WIDE:
            _log_axis(axes, cheap, dear)
        else:
            axes.set_xlim(0, dear * 1.12)
        front = front_of(points)
        if front:
            right = axes.get_xlim()[1]
            costs = [point.cost for point in front] + [right]
            values = [point.value for point in front] + [front[-1].value]
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
        return inline_svg(figure, name, description)


def loss_chart(panel: Panel, name: str, description: str) -> str:
    """The curves of a panel: one term as it is, or every layer against its own start."""
    with drawing():
        figure, axes = _figure((4.6, 2.5))
        layered = any(curve.layer is not None for curve in panel.curves)
        count = len(panel.curves)
        for place, curve in enumerate(panel.curves):
            colour = layer_colour(place, count) if layered else COLOURS["student"]
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
        top = axes.get_ylim()[1]
        axes.set_ylim(0, top)
        axes.set_xlabel("steps")
        return inline_svg(figure, name, description)


def layer_colour(place: int, count: int) -> str:
    """One of six colours from light to dark, spread over the layers."""
    step = 0 if count == 1 else round(place * (LAYER_COLOURS - 1) / (count - 1))
    return COLOURS[f"layer-{step + 1}"]


def reliability_chart(
    measured: Reliability, kind: Literal["teacher", "student"], name: str, description: str
) -> str:
    """Share right over probability, with the gap to the diagonal, above how many answers."""
    with drawing():
        figure, axes = _figure((4.6, 3.5), bottom=0.38)
        below = figure.add_axes((0.11, 0.13, 0.85, 0.15))
        rows = sum(one.rows for one in measured.bins)
        width = 1 / len(measured.bins)
        for one in measured.bins:
            below.bar(
                one.lower, one.rows / rows, width * 0.86, align="edge", color=COLOURS["muted"]
            )
            if one.confidence is None or one.correct is None:
                continue
            colour = COLOURS[kind]
            axes.bar(one.lower, one.correct, width * 0.86, align="edge", color=colour, alpha=0.75)
            ends = [one.lower, one.lower + width * 0.86]
            axes.plot(ends, [one.confidence] * 2, color=COLOURS["ink"], lw=2)
        axes.plot([0, 1], [0, 1], color=COLOURS["muted"], lw=1, ls="--")
        axes.set_ylim(0, 1)
        below.set_xlabel("probability")
        for one_axes in (axes, below):
            one_axes.set_xlim(0, 1)
        axes.tick_params(labelbottom=False)
        top = max(one.rows for one in measured.bins) / rows
        below.set_yticks([0, top], ["0", f"{100 * top:.0f} %"])
        axes.set_title("share right", **_TITLE)
        below.set_title("rows", **_TITLE)
        return inline_svg(figure, name, description)


def lengths_chart(lengths: Sequence[Lengths], limit: int, name: str, description: str) -> str:
    """Share of rows by tokens, one outline per split, and where inputs are cut."""
    colours = {"train": "muted", "dev": "teacher", "test": "student"}
    with drawing():
        figure, axes = _figure((4.6, 2.6))
        for one in lengths:
            colour = COLOURS[colours[one.split]]
            axes.stairs(one.shares, one.edges, color=colour, lw=1.6, label=one.split)
        if limit <= lengths[0].edges[-1]:
            axes.axvline(limit, color=COLOURS["gap"], lw=1.4, ls="--", label="cut here")
        axes.set_xlim(0, lengths[0].edges[-1])
        axes.set_ylim(0, None)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
        axes.set_xlabel("tokens, special ones included")
        axes.legend(fontsize=9, labelcolor=COLOURS["ink"])
        return inline_svg(figure, name, description)


def numbers_chart(
    targets: Sequence[float],
    answers: Sequence[float],
    kind: Literal["teacher", "student"],
    name: str,
    description: str,
) -> str:
    """What a model answered over what is true, one point per row."""
    with drawing():
        figure, axes = _figure((4.6, 3.4))
        axes.plot(targets, answers, "o", color=COLOURS[kind], ms=3, alpha=0.35, mew=0)
        low, high = min(*targets, *answers), max(*targets, *answers)
        axes.plot([low, high], [low, high], color=COLOURS["ink"], lw=1, ls="--")
        axes.set_xlabel("true value")
        axes.set_ylabel("answer")
        return inline_svg(figure, name, description)


def _figure(
    inches: tuple[float, float] = INCHES, bottom: float | None = None
) -> tuple[Figure, Axes]:
    """A figure with one set of axes and room for the labels around it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches)
    low = bottom if bottom is not None else 0.46 / inches[1]
    axes = figure.add_axes((0.11, low, 0.85, 1 - low - 0.25 / inches[1]))
    return figure, axes


def _log_axis(axes: Axes, cheap: float, dear: float) -> None:
    """A logarithmic axis with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.set_xlim(cheap / 1.35, dear * 1.5)
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _letters(axes: Axes, points: Sequence[Point]) -> None:
    """A letter beside each point, moved where another letter or point stands already."""
    transform = axes.transData.transform
    pixels = [tuple(map(float, transform((point.cost, point.value)))) for point in points]
    order = sorted(range(len(points)), key=lambda place: (points[place].value, pixels[place]))
    placed: list[tuple[float, float]] = []
    scale = 72 / axes.figure.dpi
    for place in order:
        x, y = pixels[place]
        others = [pixel for number, pixel in enumerate(pixels) if number != place]
        right, up = _free_place(x, y, placed, others)
        placed.append((x + right, y + up))
        arrow: dict[str, Any] | None = None
        if abs(up) > LETTER:
            arrow = {"arrowstyle": "-", "color": COLOURS["muted"], "lw": 0.6, "shrinkB": 2}
        axes.annotate(
            points[place].letter,
            (points[place].cost, points[place].value),
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
    """How far to the right and up of its point a letter stands free, in pixels."""
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
