"""Text tokenized by a graph as by the `tokenizers` library."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from text_folders import ALONE, PARTS, SPECIAL, VOCABULARY, WORDS, save_tokenizer
from tokenizers import AddedToken, Tokenizer

from factory.errors import TextModelError
from factory.export.parity import open_session
from factory.export.text.check import different_points, different_rows, feed_of
from factory.export.text.model import build_row_model
from factory.export.text.tokenizer import read_row_format, read_tables
from serving.tokenization import TextTokenizer

SETTINGS: tuple[dict[str, Any], ...] = (
    {"lowercase": True},
    {"lowercase": False, "strip_accents": False},
)
IN_WORDS = st.sampled_from([*"abAbeEéÉiİs1", "\u0301", "\u0307", "ΣΑΣ", "각", "ǰ", "\u302e"])
BETWEEN = st.sampled_from(
    [" ", "\n", "\t", "\u3000", *ALONE, "豈", "\u226e", "\u200b", "\0", "\x01"]
)
LITERALS = st.sampled_from([*SPECIAL, "[sep]", "[SEP", "SEP]", "[[CLS]]"])
TEXTS = st.lists(
    st.one_of(IN_WORDS, IN_WORDS, st.sampled_from([*WORDS, *PARTS]), BETWEEN, LITERALS, st.text()),
    max_size=14,
).map("".join)


tables_of = cache(read_tables)


@cache
def graph_of(folder: Path, max_length: int, text_pair: bool) -> tuple[Any, TextTokenizer]:
    """A session that reads text, and the library's tokenizer."""
    rows = read_row_format(folder, max_length, text_pair)
    model = build_row_model(tables_of(folder), rows)
    tokenizer = TextTokenizer.load(folder / "tokenizer.json", max_length, text_pair=text_pair)
    return open_session(model.SerializeToString(), threads=1), tokenizer


@pytest.fixture(scope="module", params=SETTINGS, ids=str)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer with one of the settings BERTs have."""
    return save_tokenizer(tmp_path_factory.mktemp("text") / "student", **request.param)


@settings(max_examples=12, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=3))
@example(texts=[""])
@example(texts=["", "\0", "[SEP]", " ", "\u0301"])
@example(texts=["b" * 100, "b" * 101, "a" + "b" * 100 + " ab"])
@example(texts=["aba中ab!abb", "e\u0323\u0301 E\u0301 İ \u1100\u1161\u11a8 각\u302e"])
def test_any_text_is_tokenized_as_by_the_library(folder: Path, texts: list[str]) -> None:
    assert different_rows(*graph_of(folder, 1000, False), texts) == []


@pytest.mark.parametrize("room", [1, 2, 5, 6])
def test_texts_and_pairs_are_cut_as_by_the_library(folder: Path, room: int) -> None:
    pairs = [("a! " * first, "b" * second) for first in range(6) for second in range(12)]
    assert different_rows(*graph_of(folder, room + 3, True), pairs) == []
    texts = ["a " * count for count in range(9)] + ["[SEP][MASK]aba x"]
    assert different_rows(*graph_of(folder, room + 2, False), texts) == []


def test_characters_are_tokenized_as_by_the_library(folder: Path) -> None:
    """Everything up to the first CJK block in steps, and the edges of the ranges behind."""
    points = [*range(0x250), *range(0x250, 0x3400, 7), *range(0x3400, 0x11000, 97)]
    points += [0x4DBF, 0x4DC0, 0x4E00, 0x9FFF, 0xA000, 0xD7A3, 0xE000, 0xF8FF, 0xF900, 0x20000]
    points += [0x2A6DF, 0x2A6E0, 0xE0001, 0xEFFFF, 0xF0000, 0xFFFFD, 0x100000, 0x10FFFF]
    assert different_points(*graph_of(folder, 100_000, False), points) == []


def test_a_difference_is_found(folder: Path, tmp_path: Path) -> None:
    """The comparison these tests rest on can fail: one tokenizer's graph, another's library."""
    other = save_tokenizer(tmp_path / "other", [*VOCABULARY, "abab"])
    session, _ = graph_of(folder, 1000, False)
    _, tokenizer = graph_of(other, 1000, False)
    assert different_rows(session, tokenizer, ["ab", "abab", "b"]) == [1]


@pytest.mark.parametrize("opset", [14, 21])
def test_other_opsets_read_alike(folder: Path, opset: int) -> None:
    model = build_row_model(tables_of(folder), read_row_format(folder, 9, text_pair=True), opset)
    _, tokenizer = graph_of(folder, 9, True)
    session = open_session(model.SerializeToString(), threads=1)
    pairs = [("ab [SEP] 中", "x\u0301 \U0001f600é"), ("a " * 9, "b " * 5), ("", "\ue000a")]
    assert different_rows(session, tokenizer, pairs) == []


def test_words_up_to_the_tokenizer_s_own_limit(tmp_path: Path) -> None:
    folder = save_tokenizer(tmp_path / "short", max_input_chars_per_word=5)
    texts = [f"a {letters * count} b" for letters in ("a", "ab", "ba") for count in range(1, 8)]
    session, tokenizer = graph_of(folder, 1000, False)
    assert different_rows(session, tokenizer, texts) == []
    long, short = tokenizer.encode(["bbbbbb", "bbbbb"])
    assert len(long) == 3 < len(short)  # the limit was met


def test_no_texts_and_the_shapes(folder: Path) -> None:
    session, _ = graph_of(folder, 1000, False)
    shapes = [value.shape for value in session.run(None, feed_of([]))]
    assert [shape[0] for shape in shapes] == [0] * 5
    ids, mask, types, count, truncated = session.run(None, feed_of(["a", "a b"]))
    cls_id, sep_id, a, b = (VOCABULARY.index(piece) for piece in ("[CLS]", "[SEP]", "a", "b"))
    assert ids.tolist() == [[cls_id, a, sep_id, 0], [cls_id, a, b, sep_id]]
    assert mask.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert types.tolist() == [[0] * 4] * 2
    assert (count.tolist(), truncated.tolist()) == ([3, 4], [False, False])


def test_another_number_of_second_texts_is_an_error(folder: Path) -> None:
    session, _ = graph_of(folder, 10, True)
    for count in (1, 3):
        feed = {"text": np.array(["a", "b"], "O"), "text_pair": np.array(["a"] * count, "O")}
        with pytest.raises(Exception, match="Reshape"):
            session.run(None, feed)


def test_further_added_tokens_are_found(tmp_path: Path) -> None:
    added = [AddedToken("<user>", normalized=False), AddedToken("@@x1", normalized=False)]
    folder = save_tokenizer(tmp_path / "added", added=added)
    texts = ["ab<user>ab", "@@x1@@x1", "<user >", "@@x1ab", "<user>[SEP]<USER>", "x1", "user"]
    session, tokenizer = graph_of(folder, 1000, False)
    assert different_rows(session, tokenizer, texts) == []
    assert len(VOCABULARY) in tokenizer.encode(["a<user>"])[0].input_ids


@pytest.mark.parametrize(
    ("added", "message"),
    [
        (AddedToken("<b>", normalized=True), "normalized = true"),
        (AddedToken("<b>", normalized=False, lstrip=True), "lstrip = true"),
        (AddedToken("<b>", normalized=False, rstrip=True), "rstrip = true"),
        (AddedToken("<b>", normalized=False, single_word=True), "single_word = true"),
        (AddedToken("]x", normalized=False), "can overlap"),
        (AddedToken("SEP", normalized=False), "can overlap"),
        (AddedToken("abcdefghijklmnopqrst", normalized=False), "too long"),
    ],
)
def test_added_tokens_the_graph_cannot_find_are_rejected(
    tmp_path: Path, added: AddedToken, message: str
) -> None:
    folder = save_tokenizer(tmp_path / "added", added=[added])
    with pytest.raises(TextModelError, match=message):
        read_tables(folder)


def test_marks_that_change_places_are_rejected(tmp_path: Path) -> None:
    vocabulary = [*VOCABULARY, "##\U0001d165"]  # class 216; U+302E is of class 224
    with pytest.raises(TextModelError, match=r"U\+302E and U\+1D165"):
        read_tables(save_tokenizer(tmp_path / "two", vocabulary))
    # without stripping of accents nothing is sorted
    unsorted = save_tokenizer(tmp_path / "kept", vocabulary, lowercase=False, strip_accents=False)
    texts = ["a\u302e\U0001d165", "a\U0001d165\u302e"]
    assert different_rows(*graph_of(unsorted, 1000, False), texts) == []


def change(folder: Path, **sections: Any) -> Path:
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | sections))
    Tokenizer.from_file(str(file))  # it is a tokenizer, only not a BERT's
    return folder


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("normalizer", {"type": "NFC"}, "found NFC instead of BertNormalizer"),
        ("normalizer", None, "found nothing instead of BertNormalizer"),
        ("pre_tokenizer", {"type": "Whitespace"}, "found Whitespace instead of"),
        (
            "model",
            {"type": "WordLevel", "vocab": {"[UNK]": 1}, "unk_token": "[UNK]"},
            "a WordLevel tokenizer",
        ),
    ],
)
def test_other_tokenizers_are_rejected(
    tmp_path: Path, section: str, value: Any, message: str
) -> None:
    folder = change(save_tokenizer(tmp_path / "student"), **{section: value})
    with pytest.raises(TextModelError, match=message):
        read_tables(folder)


def test_other_rows_are_rejected(tmp_path: Path) -> None:
    folder = change(save_tokenizer(tmp_path / "student"), post_processor=None)
    with pytest.raises(TextModelError, match=r"\[CLS\] a \[SEP\]"):
        read_row_format(folder, 9, text_pair=False)
    with pytest.raises(TextModelError, match="give the folder of a bundle"):
        read_tables(tmp_path)
