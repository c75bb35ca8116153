"""The report of chosen outputs: its content for each task, and that texts are escaped."""

from __future__ import annotations

import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup
from numpy.typing import NDArray
from report_store import dataset_of, write_store

from factory.cli.main import main
from factory.report.facts import bundle_facts
from factory.report.page import breakable, clipped, duration, render_page, signed

LABELS = ("cancel_order", "late")
TEXTS = ["cancel it", "where is it", "no thanks", "my parcel"]
TARGETS = [0, 1, 0, 1]
TEACHER = np.array([[3, 0], [0, 3], [0, 2], [0, 1]], dtype=np.float32)
STUDENT = np.array([[2, 0], [3, 0], [1, 0], [0, 1]], dtype=np.float32)
OUTPUTS = {"teacher": TEACHER, "student": STUDENT}


class Page(HTMLParser):
    """Tags with their attributes, words outside style sheets and drawings, titles of drawings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.titles: list[str] = []
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag in ("style", "svg"):
            self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.words.append(data)
        elif self.tags[-1][0] == "title":
            self.titles.append(data)

    @property
    def text(self) -> str:
        """All words with single spaces."""
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    store = tmp_path_factory.mktemp("page") / "runs"
    return write_store(store, dataset_of(LABELS, TEXTS, TARGETS), OUTPUTS)


@pytest.fixture(scope="module")
def page(bundle: Path) -> Page:
    return page_of(bundle)


def page_of(bundle: Path, texts: int = 20) -> Page:
    return Page(render_page(bundle_facts(bundle), texts))


def test_verdict_and_key_figures(page: Page) -> None:
    """Teacher and student are right in 3 of 4 rows."""
    text = page.text
    assert "Passed Served form: fp32 , the first of fp32 (recipe order) to pass gate 2." in text
    assert "accuracy on dev 0.7500 95 %: " in text
    assert "teacher 0.7500 retention 100.0 % 0.7500 / 0.7500" in text
    assert "2.00 ms 4.0 times as fast as the teacher in torch" in text
    assert "3.0 MB 3.0 times smaller than the teacher" in text
    assert "parameters 0.8 M teacher 2.2 M" in text
    assert "4 dev rows cannot resolve small differences." in text
    assert "pass min_ value accuracy 0.7500, required >= 0.5 0.7500 0.5000" in text


def test_classes_confusion_and_disagreements(page: Page) -> None:
    """The teacher is right in row 1, the student in row 2, with sigmoid(2) and sigmoid(1)."""
    text = page.text
    assert "their predictions differ on 2 of them (50.0 %)" in text
    where = text.partition("most confident disagreements first")[2]
    first, second = where.find("where is it late late"), where.find("no thanks cancel_ order late")
    assert 0 < first < second
    assert "no thanks cancel_ order late 88.1 % cancel_ order 73.1 % student" in where
    assert text.count("true class 1 2 1 cancel_ order") == 2


def test_calibration(page: Page) -> None:
    """Teacher: 0.9526, 0.9526, 0.8808, 0.7311; right, right, wrong, right."""
    text = page.text
    assert "15 bins of equal width" in text
    error = (2 * (1 - 0.952574) + 0.880797 + (1 - 0.731059)) / 4
    assert f"teacher : expected calibration error {error:.3f}" in text


def test_training_stages_and_recipe(page: Page) -> None:
    assert "Each student layer imitates the teacher layer that it is connected to." in page.text
    titles = " ".join(page.titles)
    assert "student layer 1 imitates teacher layer 3; student layer 2" in titles
    assert "Intermediate phase total loss hidden loss by student layer" in page.text
    assert "gate.min_value 0.5" in page.text
    for stage in ("data", "teacher", "distill", "evaluate", "bundle"):
        assert f"{stage} 0." in page.text


def test_the_number_of_texts_is_an_option(tmp_path: Path) -> None:
    dataset = dataset_of(LABELS, TEXTS, TARGETS)
    bundle = write_store(tmp_path / "runs", dataset, OUTPUTS, {"report.texts": 1})
    page = bundle.with_name("report-" + bundle.name.partition("-")[2]) / "report.html"
    assert CliRunner().invoke(main, ["report", str(bundle)]).stdout == f"{page}\n"
    text = page.read_text(encoding="utf-8")
    assert "where is it" in text
    assert "no thanks" not in text
    target = tmp_path / "new" / "page.html"
    arguments = ["report", str(bundle), "--output", str(target), "--no-texts"]
    assert CliRunner().invoke(main, arguments).stdout == f"{target}\n"
    text = target.read_text(encoding="utf-8")
    assert not [one for one in TEXTS if one in text]
    assert "Texts are left out of this report." in text
    assert sorted(path.name for path in target.parent.iterdir()) == ["page.html"]


def test_a_bundle_outside_its_store_shows_only_its_own_facts(bundle: Path, tmp_path: Path) -> None:
    away = Path(shutil.copytree(bundle, tmp_path / "away" / "bundle"))
    text = page_of(away).text
    assert "Passed Served form: fp32" in text
    assert "only the facts of the bundle are shown" in text
    assert "Calibration" not in text


def test_the_page_loads_nothing_and_has_no_scripts(page: Page) -> None:
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "iframe", "object", "embed", "img", "form"}
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "srcset", "data"):
            value = attributes.get(name) or "#"
            assert value.startswith("#") or value == "data:,", (tag, name, value)
        assert not [name for name in attributes if name.startswith("on")]
    (policy,) = [a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {a["href"] for t, a in page.tags if t == "a" and a["href"]}
    assert {link[1:] for link in links} <= set(ids)


MARKUP = "</td></style><script>alert('x')</script><img src=x onerror=alert(1)>{{ 7 * 7 }}&amp;$x$"


def test_labels_and_texts_with_markup_are_escaped(tmp_path: Path) -> None:
    labels = (f"a{MARKUP}", f"b{MARKUP}")
    texts = [f"{number}{MARKUP}" for number in range(4)]
    page = page_of(write_store(tmp_path / "runs", dataset_of(labels, texts, TARGETS), OUTPUTS))
    assert not {tag for tag, _ in page.tags} & {"script", "img"}
    shown = "".join(page.words)
    assert f"1{MARKUP}" in shown
    assert "49" not in shown
    assert "<script>alert('x')</script>" in shown.replace("\N{ZERO WIDTH SPACE}", "")


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1)


@settings(max_examples=25)
@given(TEXT)
def test_breakable_keeps_the_label(label: str) -> None:
    shown = breakable(label)
    assert isinstance(shown, Markup)
    page = Page(f"<p>{shown}</p>")
    assert {tag for tag, _ in page.tags} <= {"p", "wbr"}
    assert "".join(page.words) == label


def test_regression(tmp_path: Path) -> None:
    """The teacher is off by 0.5, 0 and 1; the student by 0, 1 and 3."""
    dataset = dataset_of(("value",), ["one", "two", "three"], [1.0, 2.0, 3.0], "regression")
    outputs: dict[str, NDArray[Any]] = {
        "teacher": np.array([[1.5], [2.0], [4.0]], dtype=np.float32),
        "student": np.array([[1.0], [3.0], [0.0]], dtype=np.float32),
    }
    changes = {"gate": {"min_value": 0.0}}
    bundle = write_store(tmp_path / "runs", dataset, outputs, changes)
    text = page_of(bundle).text
    assert "teacher 0.500 0.645 0.500" in text
    assert "student 1.333 1.826 1.000" in text
    assert "largest differences first" in text
    assert "three 3.00 4.00 0.00 teacher" in text
    assert "Calibration" not in text
    assert "Confusion" not in text


def test_multilabel(tmp_path: Path) -> None:
    dataset = dataset_of(LABELS, TEXTS, [(0,), (0, 1), (), (1,)], "multilabel")
    outputs = {
        "teacher": np.array([[3, -3], [3, 3], [-3, -3], [-3, 3]], dtype=np.float32),
        "student": np.array([[3, -3], [3, -2], [-3, -3], [-3, 3]], dtype=np.float32),
    }
    changes = {"gate": {"min_value": 0.1}, "evaluate.thresholds": 0.5}
    bundle = write_store(tmp_path / "runs", dataset, outputs, changes)
    text = page_of(bundle).text
    assert "where is it cancel_ order, late late 95.3 % not late 11.9 % teacher" in text
    assert "The probability of every label on every row" in text
    assert "Confusion" not in text


def test_filters() -> None:
    durations = {0.04: "0.0 s", 59.94: "59.9 s", 60: "1 min 00 s", 7260: "2 h 01 min"}
    assert {seconds: duration(seconds) for seconds in durations} == durations
    minus = "\N{MINUS SIGN}"
    differences = {0.05: "+0.050", -0.05: f"{minus}0.050", 0.0002: "0.000", -0.0002: "0.000"}
    assert {number: signed(number) for number in differences} == differences
    assert clipped("x" * 400) == "x" * 400
    assert clipped("x" * 401) == "x" * 400 + "…"
