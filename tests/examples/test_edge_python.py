"""The Python example gives the server's answers, and is as short as docs/edge.md promises."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable

import pytest
from helpers.edge_bundles import EXAMPLES, MAX_LENGTH, TEXTS, Edge, check_answers, json_lines

from serving.predictor import Predictor

EXAMPLE = EXAMPLES / "python" / "classify.py"


@pytest.mark.parametrize("kind", ["single", "pair", "multilabel", "regression"])
def test_the_answers_are_the_servers(
    edge: Callable[[str], Edge],
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = edge(kind)
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(given.bundle), *given.arguments()])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    check_answers(json_lines(capsys.readouterr().out), given.expected())


def test_the_texts_reveal_errors(edge: Callable[[str], Edge]) -> None:
    """Lost accents, truncation and special tokens change the scores."""
    predictor = Predictor.open(edge("single").bundle)
    tokens = [predictor.tokenize([text])[0] for text in TEXTS]
    assert sum(item.truncated for item in tokens) == 1
    assert all(len(item) <= MAX_LENGTH for item in tokens)
    assert len({tuple(item.input_ids) for item in tokens}) == len(TEXTS)
    plain, other = predictor.predict(["cafe", "caf"])
    assert max(abs(a - b) for a, b in zip(plain.scores, other.scores, strict=True)) > 0.01
    assert predictor.predict(["CAFÉ"])[0].scores == plain.scores
    assert len({max(item.scores) for item in predictor.predict(TEXTS)}) == len(TEXTS)
    winners = {item.scores.index(max(item.scores)) for item in predictor.predict(TEXTS)}
    assert len(winners) > 1


def test_it_is_twenty_lines_below_its_imports() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    code = [
        line for line in lines if line.strip() and not line.startswith(('"""', "import", "from"))
    ]
    assert len(code) <= 20
