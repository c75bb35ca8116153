"""The charts as inline SVG, the loss curves, the lengths."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from factory.report.charts import COLOURS, Point, cost_chart, lengths_chart, loss_chart
from factory.report.curves import POINTS_SHOWN, Curve, Lengths, Panel, loss_panels
from factory.report.facts import StageFiles


def point(letter: str, cost: float, value: float, exported: bool = True) -> Point:
    return Point(letter, "form", cost, value, value - 0.1, value + 0.1, exported)


def drawn(points: list[Point], name: str = "one") -> str:
    return cost_chart(points, "p50 latency, ms", name, "what it says")


def test_a_picture_takes_its_colours_and_its_font_from_the_page() -> None:
    text = drawn([point("A", 1, 0.5), point("B", 9, 0.6)])
    assert not re.search(r"#[0-9a-fA-F]{6}\b", text)
    used = set(re.findall(r"var\(--([\w-]+)\)", text))
    assert {"student", "ink", "muted", "line", "served"} <= used <= set(COLOURS)
    assert "font-family" not in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    root = ElementTree.fromstring(text)
    assert "width" not in root.attrib
    assert root.find("{*}title").text == "what it says"  # type: ignore[union-attr]
    assert [item.text for item in root.iter("{http://www.w3.org/2000/svg}text")].count("A") == 1


def test_ids_of_two_pictures_differ_and_every_reference_is_met() -> None:
    texts = [drawn([point("A", 1, 0.5)], name) for name in ("one", "two")]
    ids = [re.findall(r'\bid="([^"]+)"', text) for text in texts]
    assert not set(ids[0]) & set(ids[1])
    for text, own in zip(texts, ids, strict=True):
        assert len(own) == len(set(own))
        assert set(re.findall(r"url\(#([^)]+)\)", text) + re.findall(r'href="#([^"]+)"', text)) <= (
            set(own)
        )


def test_the_same_picture_twice_is_the_same_text() -> None:
    assert drawn([point("A", 1, 0.5)]) == drawn([point("A", 1, 0.5)])


def test_words_are_drawn_as_text() -> None:
    """Dollar signs are no formulas, and markup is no markup."""
    words = "$x_1$ <b>&_^"
    text = cost_chart([point("A", 1, 0.5)], words, "any", words)
    root = ElementTree.fromstring(text)
    assert root.find("{*}title").text == words  # type: ignore[union-attr]
    shown = ["".join(item.itertext()) for item in root.iter("{http://www.w3.org/2000/svg}text")]
    assert words in shown
    assert not list(root.iter("{http://www.w3.org/2000/svg}b"))


def test_layers_are_drawn_against_their_own_start() -> None:
    curves = [
        Curve(1, [0, 10], [4.0, 2.0], [1.0, 0.5]),
        Curve(2, [0, 10], [400.0, 300.0], [1.0, 0.75]),
    ]
    text = loss_chart(Panel("intermediate", "Intermediate", "hidden", curves), "loss", "curves")
    shown = re.findall(r">([^<>\n]+)</text>", text)
    assert {"layer 1", "layer 2", "1.0"} <= set(shown)
    assert "400" not in shown


def test_where_texts_are_cut_is_drawn_only_when_it_is_in_sight() -> None:
    edges = [0.0, 10.0, 20.0]
    one = Lengths("train", 4, 4, 5, 9, 12, 0.0, edges, [0.75, 0.25])
    assert "maximum length" in lengths_chart([one], 16, "lengths", "said")
    assert "maximum length" not in lengths_chart([one], 64, "lengths", "said")


def stage(folder: Path, rows: list[str]) -> StageFiles:
    folder.mkdir()
    (folder / "losses.csv").write_text(
        "\n".join(["phase,step,term,value,of_start", *rows]) + "\n", encoding="utf-8"
    )
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
    panels = loss_panels([stage(tmp_path / "distill", rows)])
    assert [(panel.phase, panel.kind) for panel in panels] == [
        ("intermediate", "total"),
        ("intermediate", "hidden"),
        ("prediction", "total"),
    ]
    assert panels[1].curves == [
        Curve(1, [0, 5], [2.0, 1.0], [1.0, 0.5]),
        Curve(2, [0, 5], [1.0, 0.25], [1.0, 0.25]),
    ]


def test_long_logs_are_averaged_and_keep_their_start_and_end(tmp_path: Path) -> None:
    """120 points behind the first become 60 means of two."""
    rows = [f"prediction,{step},total,{step},{step / 10}" for step in range(2 * POINTS_SHOWN + 1)]
    (panel,) = loss_panels([stage(tmp_path / "distill", rows)])
    (curve,) = panel.curves
    assert len(curve.steps) == POINTS_SHOWN + 1
    assert curve.steps[:3] == [0, 2, 4]
    assert curve.values[:3] == [0.0, 1.5, 3.5]
    assert curve.of_start[1] == pytest.approx(0.15)
    assert curve.steps[-1] == 2 * POINTS_SHOWN
