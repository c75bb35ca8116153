"""The charts as inline SVG, and the loss curves."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from factory.report.charts import COLOURS, Point, cost_chart, lengths_chart, loss_chart
from factory.report.curves import POINTS_SHOWN, Curve, Lengths, Panel, loss_panels
from factory.report.facts import StageFiles

SVG = "{http://www.w3.org/2000/svg}"


def point(letter: str, cost: float, value: float) -> Point:
    return Point(letter, "form", cost, value, value - 0.1, value + 0.1, exported=True)


def drawn(points: list[Point], name: str = "one") -> str:
    return cost_chart(points, "p50 latency, ms", name, "a description")


def test_colours_and_fonts_are_the_pages() -> None:
    text = drawn([point("A", 1, 0.5), point("B", 9, 0.6)])
    assert not re.search(r"#[0-9a-fA-F]{6}\b", text)
    used = set(re.findall(r"var\(--([\w-]+)\)", text))
    assert {"student", "ink", "muted", "line", "served"} <= used <= set(COLOURS)
    assert "font-family" not in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    root = ElementTree.fromstring(text)
    assert "width" not in root.attrib
    assert root.find("{*}title").text == "a description"  # type: ignore[union-attr]
    assert [item.text for item in root.iter(f"{SVG}text")].count("A") == 1


def test_charts_are_reproducible_and_ids_are_unique_on_a_page() -> None:
    texts = [drawn([point("A", 1, 0.5)], name) for name in ("one", "two")]
    assert texts[0] == drawn([point("A", 1, 0.5)])
    ids = [re.findall(r'\bid="([^"]+)"', text) for text in texts]
    assert not set(ids[0]) & set(ids[1])
    for text, own in zip(texts, ids, strict=True):
        assert len(own) == len(set(own))
        assert set(re.findall(r"url\(#([^)]+)\)", text) + re.findall(r'href="#([^"]+)"', text)) <= (
            set(own)
        )


def test_labels_are_text_and_not_markup_or_math() -> None:
    words = "$x_1$ <b>&_^"
    text = cost_chart([point("A", 1, 0.5)], words, "any", words)
    root = ElementTree.fromstring(text)
    assert root.find("{*}title").text == words  # type: ignore[union-attr]
    assert words in ["".join(item.itertext()) for item in root.iter(f"{SVG}text")]
    assert not list(root.iter(f"{SVG}b"))


def test_losses_of_layers_are_relative_to_their_start() -> None:
    curves = [
        Curve(1, [0, 10], [4.0, 2.0], [1.0, 0.5]),
        Curve(2, [0, 10], [400.0, 300.0], [1.0, 0.75]),
    ]
    text = loss_chart(Panel("intermediate", "Intermediate", "hidden", curves), "loss", "curves")
    shown = re.findall(r">([^<>\n]+)</text>", text)
    assert {"layer 1", "layer 2", "1.0"} <= set(shown)
    assert "400" not in shown


@pytest.mark.parametrize(("limit", "shown"), [(16, True), (64, False)])
def test_maximum_length_is_drawn_within_the_axis(limit: int, shown: bool) -> None:
    one = Lengths("train", 4, 4, 5, 9, 12, 0.0, [0.0, 10.0, 20.0], [0.75, 0.25])
    assert ("maximum length" in lengths_chart([one], limit, "lengths", "lengths")) is shown


def stage(folder: Path, rows: list[str]) -> StageFiles:
    lines = ["phase,step,term,value,of_start", *rows]
    (folder / "losses.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return StageFiles("student", folder, {"facts": {}})


def test_terms_of_one_kind_share_a_panel(tmp_path: Path) -> None:
    rows = [
        "intermediate,0,total,3,1",
        "intermediate,0,hidden.1,2,1",
        "intermediate,0,hidden.2,1,1",
        "intermediate,5,total,1.5,0.5",
        "intermediate,5,hidden.1,1,0.5",
        "intermediate,5,hidden.2,0.25,0.25",
        "prediction,0,total,7,1",
    ]
    panels = loss_panels([stage(tmp_path, rows)])
    assert [(panel.phase, panel.kind) for panel in panels] == [
        ("intermediate", "total"),
        ("intermediate", "hidden"),
        ("prediction", "total"),
    ]
    assert panels[1].curves == [
        Curve(1, [0, 5], [2.0, 1.0], [1.0, 0.5]),
        Curve(2, [0, 5], [1.0, 0.25], [1.0, 0.25]),
    ]


def test_long_curves_are_averaged_and_keep_their_start_and_end(tmp_path: Path) -> None:
    """The 120 points after the first become 60 means of two."""
    rows = [f"prediction,{step},total,{step},{step / 10}" for step in range(2 * POINTS_SHOWN + 1)]
    (panel,) = loss_panels([stage(tmp_path, rows)])
    (curve,) = panel.curves
    assert len(curve.steps) == POINTS_SHOWN + 1
    assert curve.steps[:3] == [0, 2, 4]
    assert curve.values[:3] == [0.0, 1.5, 3.5]
    assert curve.of_start[1] == pytest.approx(0.15)
    assert curve.steps[-1] == 2 * POINTS_SHOWN
