"""The shipped support messages: enough, balanced, distinct, and no near-duplicate across splits."""

from __future__ import annotations

import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from helpers.pipeline_run import ROOT
from sklearn.preprocessing import MultiLabelBinarizer

FOLDER = ROOT / "recipes" / "support"
LEAST_ROWS = {"train": 2400, "dev": 400, "test": 400}
LABELS = {
    "account_access", "cancel_order", "change_order", "damaged_or_wrong", "delivery_late",
    "delivery_missing", "discount_code", "exchange_item", "payment_problem", "product_question",
    "refund_status", "return_item",
}  # fmt: skip
Rows = list[tuple[str, str]]


@pytest.fixture(scope="module")
def splits() -> dict[str, Rows]:
    """Text and label of every row."""
    return {name: read_rows(FOLDER / f"{name}.tsv") for name in LEAST_ROWS}


def read_rows(path: Path) -> Rows:
    """Every line after the header; each has exactly one tab."""
    head, *lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    assert head == "text\tlabel"
    rows = [line.split("\t") for line in lines]
    assert {len(row) for row in rows} == {2}, path
    return [(text, label) for text, label in rows]


def normalized(text: str) -> str:
    """Lower case, letters and digits only, single blanks."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Shared over all."""
    return len(one & other) / len(one | other) if one or other else 1.0


def pieces(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """Character 3-grams and words of a normalized text."""
    plain = normalized(text)
    grams = frozenset(plain[start : start + 3] for start in range(max(1, len(plain) - 2)))
    return grams, frozenset(plain.split())


def test_jaccard_by_hand() -> None:
    grams, words = pieces("Where, IS it?")
    assert words == {"where", "is", "it"}
    assert grams == {"whe", "her", "ere", "re ", "e i", " is", "is ", "s i", " it"}
    assert jaccard(words, pieces("it is here")[1]) == 2 / 4


def test_rows_and_labels(splits: dict[str, Rows]) -> None:
    for name, rows in splits.items():
        assert len(rows) >= LEAST_ROWS[name]
        counts = Counter(label for _, label in rows)
        assert set(counts) == LABELS
        assert max(counts.values()) <= 1.1 * min(counts.values())


def test_every_text_is_clean(splits: dict[str, Rows]) -> None:
    for rows in splits.values():
        for text, _ in rows:
            assert text == text.strip()
            assert text
            assert text.isprintable()
            assert len(text.split()) <= 60


def test_all_texts_are_distinct(splits: dict[str, Rows]) -> None:
    texts = [normalized(text) for rows in splits.values() for text, _ in rows]
    repeated = [text for text, count in Counter(texts).items() if count > 1]
    assert repeated == []


def test_no_near_duplicates_between_splits(splits: dict[str, Rows]) -> None:
    found = []
    for one, other in combinations(splits, 2):
        found += near_duplicates([t for t, _ in splits[one]], [t for t, _ in splits[other]])
    assert found == []


def near_duplicates(one: list[str], other: list[str]) -> list[tuple[str, str]]:
    """Pairs with a 3-gram Jaccard of 0.6 or more, or a word Jaccard of 0.7 or more."""
    left, right = [pieces(text) for text in one], [pieces(text) for text in other]
    found: set[tuple[int, int]] = set()
    for kind, limit in ((0, 0.6), (1, 0.7)):
        found |= alike([sets[kind] for sets in left], [sets[kind] for sets in right], limit)
    return [(one[row], other[number]) for row, number in sorted(found)]


def alike(
    left: list[frozenset[str]], right: list[frozenset[str]], limit: float
) -> set[tuple[int, int]]:
    """Pairs of sets with a Jaccard of at least `limit`: all intersections in one sparse product."""
    both = MultiLabelBinarizer(sparse_output=True).fit([*left, *right])
    shared = (both.transform(left).astype(int) @ both.transform(right).astype(int).T).tocoo()
    sizes = np.array([*map(len, left)]), np.array([*map(len, right)])
    union = sizes[0][shared.row] + sizes[1][shared.col] - shared.data
    kept = shared.data >= limit * union
    return set(zip(shared.row[kept].tolist(), shared.col[kept].tolist(), strict=True))


def test_the_search_finds_near_duplicates() -> None:
    one = ["Where is my parcel, it was due on Tuesday?", "refund please"]
    other = ["where is my parcel? it was due on tuesday!!", "i want to cancel", "please refund"]
    assert near_duplicates(one, other) == [(one[0], other[0]), (one[1], other[2])]


def test_no_two_words_start_too_many_rows(splits: dict[str, Rows]) -> None:
    rows = [text for split in splits.values() for text, _ in split]
    starts = Counter(" ".join(normalized(text).split()[:2]) for text in rows)
    ((start, count),) = starts.most_common(1)
    assert count <= 0.04 * len(rows), start


def test_the_readme_tells_the_numbers(splits: dict[str, Rows]) -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name, rows in splits.items():
        assert f"| `{name}.tsv` | {len(rows):,} |" in readme
    assert "synthetic" in readme
    assert all(label in readme for label in LABELS)
