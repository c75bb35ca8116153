"""A matplotlib figure as inline SVG that takes its colours and its font from the page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"

# What a figure is drawn with; each stands for a variable of the page's style sheet, so that light,
# dark and print are the style sheet's affair.
COLOURS = {
    "ink": "#010101",
    "muted": "#010102",
    "line": "#010103",
    "paper": "#010104",
    "teacher": "#010105",
    "student": "#010106",
    "baseline": "#010107",
    "served": "#010108",
    "gap": "#010109",
    "layer-1": "#01010a",
    "layer-2": "#01010b",
    "layer-3": "#01010c",
    "layer-4": "#01010d",
    "layer-5": "#01010e",
    "layer-6": "#01010f",
}
_VARIABLES = {value: f"var(--{name})" for name, value in COLOURS.items()}


@contextmanager
def drawing() -> Iterator[None]:
    """The settings all figures are drawn under; text stays text, and `$` is a dollar sign."""
    import matplotlib

    settings: Any = {  # matplotlib's own type names every setting there is
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
        matplotlib.rcdefaults()  # whatever a matplotlibrc of this machine says
        matplotlib.rcParams.update(settings)
        yield


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an `svg` element without fixed size, ids of its own, and a description.

    Args:
        name: unique on the page; prefix of every id.
        description: what the picture says, for who cannot see it.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    for child in list(root):
        if child.tag == f"{SVG}metadata" or child.find(f"{SVG}style") is not None:
            root.remove(child)
    referenced = set(re.findall(r"#(m\w+|p\w+)", ElementTree.tostring(root, "unicode")))
    for element in root.iter():
        _clean(element, name, referenced)
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    title = ElementTree.Element(f"{SVG}title", {"id": f"{name}-title"})
    title.text = description
    root.insert(0, title)
    root.attrib.update({"role": "img", "aria-labelledby": f"{name}-title", "class": "chart"})
    ElementTree.register_namespace("", SVG[1:-1])
    return ElementTree.tostring(root, "unicode")


def _clean(element: ElementTree.Element, name: str, referenced: set[str]) -> None:
    identity = element.attrib.pop("id", None)
    if identity in referenced:
        element.set("id", f"{name}-{identity}")
    target = element.attrib.pop(HREF, None)
    if target is not None:
        element.set("href", f"#{name}-{target[1:]}")
    if "clip-path" in element.attrib:
        element.set("clip-path", element.attrib["clip-path"].replace("url(#", f"url(#{name}-"))
    if "d" in element.attrib:
        element.set("d", _shorter(element.attrib["d"]))
    if "style" in element.attrib:
        element.set("style", _style(element))
    if element.attrib.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]


def _style(element: ElementTree.Element) -> str:
    """Colours become the page's variables; the font is the page's own."""
    parts = []
    for part in element.attrib["style"].split(";"):
        key, _, value = (piece.strip() for piece in part.partition(":"))
        if key == "font-family":
            continue
        if key == "font" and "px" in value:  # size and the family in one
            key, value = "font-size", f"{value.split('px')[0].split()[-1]}px"
        parts.append(f"{key}:{_VARIABLES.get(value, value)}")
    if element.tag == f"{SVG}text" and not any(part.startswith("fill:") for part in parts):
        parts.append("fill:var(--ink)")
    return ";".join(parts)


def _shorter(path: str) -> str:
    """Coordinates to a hundredth of a point, on one line."""
    numbers = re.sub(r"-?\d+\.\d+", lambda match: f"{round(float(match[0]), 2):g}", path)
    return " ".join(numbers.split())
