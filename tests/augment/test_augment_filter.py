"""What the teacher drops, by hand-set logits, for classes, sets of labels and numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_masked import listed
from tiny_models import MAX_LENGTH, tiny_split, tiny_tokenizer

from factory.augment.rendering import Variant
from factory.augment.stage import augment, read_augmented
from factory.augment.teacher_filter import TeacherFilter
from factory.augment.tools import AugmentTools
from factory.data.dataset import Split
from factory.models.classifier import TorchClassifier
from factory.recipe.augment import AugmentSettings


@dataclass(frozen=True, slots=True)
class TableTeacher:
    """A teacher whose logits for each text stand in a table."""

    table: dict[Any, list[float]]
    asked: list[Any] = field(default_factory=list)

    def logits(self, inputs: Sequence[Any]) -> NDArray[np.float32]:
        """Look the inputs up."""
        self.asked.extend(inputs)
        return np.array([self.table[text] for text in inputs], dtype=np.float32)


def probabilities(*values: float) -> list[float]:
    """Logits whose softmax these are."""
    return [math.log(value) + 3.0 for value in values]


def odds(*values: float) -> list[float]:
    """Logits whose sigmoids these are."""
    return [math.log(value / (1.0 - value)) for value in values]


def kept(
    table: dict[Any, list[float]], targets: Any, most_drop: float, name: str = "row"
) -> list[str]:
    """Of the table's texts, all variants of the row `row`, those that stay."""
    train = Split("train", ["other", name], None, targets)
    variants = [Variant(1, 0, (text,), ((),)) for text in table if text != name]
    teacher: Any = TableTeacher({"other": table[name][::-1], **table})
    found = TeacherFilter(teacher, train, most_drop).kept(range(1, 2), variants)
    assert teacher.asked == [name, *(variant.texts[0] for variant in variants)]
    return [variant.texts[0] for variant in found]


def test_classes() -> None:
    table = {
        "row": probabilities(0.1, 0.8, 0.1),
        "same": probabilities(0.1, 0.8, 0.1),
        "surer": probabilities(0.0001, 0.9998, 0.0001),
        "less sure": probabilities(0.2, 0.51, 0.29),
        "far less sure": probabilities(0.3, 0.49, 0.21),
        "another": probabilities(0.52, 0.45, 0.03),
        "hardly another": probabilities(0.41, 0.4, 0.19),
    }
    # the row's own label is the teacher's, not the one in the data
    assert kept(table, [0, 0], 0.3) == ["same", "surer", "less sure"]
    assert kept(table, [0, 0], 0.32) == ["same", "surer", "less sure", "far less sure"]
    assert kept(table, [0, 0], 1.0) == ["same", "surer", "less sure", "far less sure"]


def test_sets_of_labels() -> None:
    table = {
        "row": odds(0.9, 0.2),
        "same": odds(0.9, 0.2),
        "other label rises": odds(0.9, 0.45),
        "other label applies": odds(0.9, 0.55),
        "label goes": odds(0.45, 0.2),
        "falls": odds(0.7, 0.2),
        "falls far": odds(0.55, 0.2),
        "huge": [1000.0, -1000.0],
    }
    targets = [(), (0, 1)]
    assert kept(table, targets, 0.3) == ["same", "other label rises", "falls", "huge"]
    assert kept(table, targets, 0.4) == ["same", "other label rises", "falls", "falls far", "huge"]


def test_numbers() -> None:
    # the targets' standard deviation is 2
    table = {"row": [1.0], "up": [1.9], "far up": [2.1], "down": [0.1], "far down": [-0.1]}
    assert kept(table, [5.0, 1.0], 0.5) == ["up", "down"]
    assert kept(table, [5.0, 1.0], 1.0) == ["up", "far up", "down", "far down"]


def test_pairs_are_judged_as_pairs() -> None:
    train = Split("train", ["a"], ["b"], [0])
    variants = [Variant(0, copy, ("a", text), ((), ())) for copy, text in enumerate("cd")]
    table = {("a", "b"): [1.0, 0.0], ("a", "c"): [1.0, 0.0], ("a", "d"): [0.0, 1.0]}
    teacher: Any = TableTeacher(table)
    assert TeacherFilter(teacher, train, 0.5).kept(range(1), variants) == variants[:1]
    assert TeacherFilter(teacher, train, 0.5).kept(range(1), []) == []


@pytest.mark.parametrize("filtered", ["off", "teacher"])
def test_in_the_stage_variants_that_flip_are_gone(
    tmp_path: Path, teacher: TorchClassifier, filtered: str
) -> None:
    """The keywords of a label become those of another, or of the same."""
    train = tiny_split("train", 60, seed=5)
    vectors = listed(
        broken=["thanks", "awful"],
        awful=["great", "broken"],
        thanks=["awful", "great"],
        great=["late", "love"],
        love=["refund", "happy"],
    )
    recipe = AugmentSettings(
        vectors="any", sources=["vectors"], copies=6, filter=filtered, replace_probability=1.0
    )
    tokenizer = tiny_tokenizer()
    facts = augment(
        tmp_path,
        train,
        recipe,
        AugmentTools(tokenizer, MAX_LENGTH, None, {"vectors": vectors}, teacher),
    )
    inputs, rows = read_augmented(tmp_path)
    before = teacher.logits(train.inputs()).argmax(axis=1)[rows]
    flipped = int((teacher.logits(inputs).argmax(axis=1) != before).sum())
    if filtered == "off":
        assert facts["dropped"]["filter"] == 0
        assert flipped > 10
    else:
        assert facts["dropped"]["filter"] > 10
        assert flipped == 0
        assert len(inputs) > 10
