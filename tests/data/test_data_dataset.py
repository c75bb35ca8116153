"""A stored data set keeps every character."""

from __future__ import annotations

from pathlib import Path

import pytest

from factory.data.dataset import Dataset, Split, read_dataset, write_dataset
from factory.errors import DataError


def test_awkward_characters_and_a_folder_name_like_a_partition(tmp_path: Path) -> None:
    texts = ["a\nb\r\nc", "nul\0nul", '"quoted", ""', "🙂\u2028", "", "NA"]
    splits = [Split(name, texts, texts[::-1], [0.5] * 6) for name in ("train", "dev", "test")]
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
