"""The documentation: generated pages are current, every page is in the menu, drawings are XML."""

from __future__ import annotations

import importlib.util
import re
import xml.etree.ElementTree
from pathlib import Path
from types import ModuleType

import pytest
from helpers.pipeline_run import ROOT

DOCS = ROOT / "docs"
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")


def generator() -> ModuleType:
    """docs/build/reference.py, which is in no package."""
    path = DOCS / "build" / "reference.py"
    spec = importlib.util.spec_from_file_location("docs_reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_pages_are_current() -> None:
    """`python docs/build/reference.py` writes them."""
    pages = generator().pages()
    assert len(pages) == 5
    for name, text in pages.items():
        assert (DOCS / "reference" / name).read_text(encoding="utf-8") == text, name


def test_the_keys_of_a_recipe_are_all_there() -> None:
    text = (DOCS / "reference" / "recipe-keys.md").read_text(encoding="utf-8")
    for key in ("`dev_fraction`", "`min_retention`", "`layer_map`", "`relation_heads`"):
        assert f"| {key} |" in text


def test_every_page_is_in_the_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in DOCS.rglob("*.md"):
        assert page.relative_to(DOCS).as_posix() in menu


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.stem)
def test_links_lead_to_files(page: Path) -> None:
    for target, _ in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_the_drawings_are_xml_with_a_title() -> None:
    drawings = sorted((DOCS / "images").glob("*.svg"))
    assert drawings
    for drawing in drawings:
        root = xml.etree.ElementTree.parse(drawing).getroot()
        assert root.find("{http://www.w3.org/2000/svg}title") is not None
