"""The stored form of a data set keeps every character."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.data.dataset import Dataset, Split, read_dataset, write_dataset
from factory.errors import DataError

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT, st.integers(0, 1)), min_size=1), st.booleans())
def test_every_text_survives(rows: list[tuple[str, str, int]], pairs: bool) -> None:
    split = [
        Split(
            name,
            [row[0] for row in rows],
            [row[1] for row in rows] if pairs else None,
            [row[2] for row in rows],
        )
        for name in ("train", "dev")
    ]
    dataset = Dataset("classification", ("no", 'y"es\n'), split[0], split[1], None)
    with tempfile.TemporaryDirectory() as directory:
        write_dataset(dataset, Path(directory))
        assert read_dataset(Path(directory)) == dataset


def test_awkward_characters_and_a_folder_name_like_a_partition(tmp_path: Path) -> None:
    texts = ["a\nb\r\nc", "nul\0nul", '"quoted", ""', "🙂\u2028", "", "NA"]
    splits = [Split(name, texts, None, [0.5] * 6) for name in ("train", "dev", "test")]
    dataset = Dataset("regression", ("value",), *splits)
    write_dataset(dataset, tmp_path / "text=1")
    assert read_dataset(tmp_path / "text=1") == dataset


def test_inputs_are_texts_or_pairs() -> None:
    assert Split("dev", ["a"], None, [0]).inputs() == ["a"]
    assert Split("dev", ["a"], ["b"], [0]).inputs() == [("a", "b")]
    assert len(Split("dev", ["a"], ["b"], [0])) == 1


def test_a_broken_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run the data stage again"):
        read_dataset(tmp_path)
    split = Split("train", ["a"], None, [0])
    write_dataset(Dataset("classification", ("a", "b"), split, split, None), tmp_path)
    (tmp_path / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read"):
        read_dataset(tmp_path)
