"""Shared by the data tests: write files, load them as a recipe would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from factory.data.dataset import Dataset
from factory.data.load import load_dataset
from factory.errors import DataError
from factory.recipe.data import DataSettings


class Loaded:
    """What came of loading: a data set or problems, and the notices."""

    def __init__(self) -> None:
        self.notices: list[str] = []
        self.problems: tuple[str, ...] = ()
        self.dataset: Dataset | None = None
        self.facts: dict[str, object] = {}

    def rows(self, split: str = "train") -> list[tuple[Any, Any]]:
        """Inputs with the label name (or number) of each row."""
        assert self.dataset is not None, self.problems
        found = getattr(self.dataset, split)
        targets = found.targets
        if self.dataset.task == "classification":
            targets = [self.dataset.labels[target] for target in targets]
        return list(zip(found.inputs(), targets, strict=True))

    def problem(self, *parts: str) -> str:
        """The one problem that holds all the parts."""
        return _only(self.problems, parts)

    def notice(self, *parts: str) -> str:
        """The one notice that holds all the parts."""
        return _only(self.notices, parts)


def _only(lines: tuple[str, ...] | list[str], parts: tuple[str, ...]) -> str:
    found = [line for line in lines if all(part in line for part in parts)]
    assert len(found) == 1, f"{parts} in {len(found)} of:\n" + "\n".join(lines)
    return found[0]


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Loaded]:
    """Write the given files beside a recipe and load them with the given settings."""

    def write_and_load(files: dict[str, str | bytes], **settings: Any) -> Loaded:
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        loaded = Loaded()
        cache = tmp_path / "cache"
        try:
            loaded.dataset, loaded.facts = load_dataset(
                DataSettings(**settings), tmp_path, cache, loaded.notices.append
            )
        except DataError as error:
            loaded.problems = error.problems
        return loaded

    return write_and_load
