"""Which teacher layer each student layer learns from."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.distill.matching import describe_map, map_layers
from factory.errors import RecipeError


@pytest.mark.parametrize(
    ("strategy", "student_layers", "teacher_layers", "expected"),
    [
        ("uniform", 4, 12, (3, 6, 9, 12)),
        ("top", 4, 12, (9, 10, 11, 12)),
        ("bottom", 4, 12, (1, 2, 3, 4)),
        ("uniform", 6, 12, (2, 4, 6, 8, 10, 12)),
        # 1.5, 3, 4.5, 6: halves go up
        ("uniform", 4, 6, (2, 3, 5, 6)),
        # 2.4, 4.8, 7.2, 9.6, 12
        ("uniform", 5, 12, (2, 5, 7, 10, 12)),
        # 7 / 3 and 14 / 3
        ("uniform", 3, 7, (2, 5, 7)),
        ("uniform", 1, 12, (12,)),
        ("uniform", 3, 3, (1, 2, 3)),
        ("top", 3, 3, (1, 2, 3)),
        # a student deeper than its teacher: 0.5, 1, 1.5, 2, and 1 / 3 may not become layer 0
        ("uniform", 4, 2, (1, 1, 2, 2)),
        ("uniform", 6, 2, (1, 1, 1, 1, 2, 2)),
        ([1, 5, 5, 12], 4, 12, (1, 5, 5, 12)),
    ],
)
def test_the_map(
    strategy: str | list[int], student_layers: int, teacher_layers: int, expected: tuple[int, ...]
) -> None:
    assert map_layers(strategy, student_layers, teacher_layers) == expected


@given(st.integers(1, 30), st.integers(1, 60))
def test_uniform_always_ends_at_the_top_and_never_goes_down(student: int, teacher: int) -> None:
    layers = map_layers("uniform", student, teacher)
    assert len(layers) == student
    assert layers[-1] == teacher
    assert list(layers) == sorted(layers)
    assert all(1 <= layer <= teacher for layer in layers)
    if teacher % student == 0:
        assert {b - a for a, b in itertools.pairwise(layers)} <= {teacher // student}


@pytest.mark.parametrize(
    ("strategy", "student_layers", "teacher_layers", "problems"),
    [
        ("top", 4, 3, ['"top" needs a teacher of at least 4 layers, it has 3; use "uniform"']),
        (
            "bottom",
            4,
            3,
            ['"bottom" needs a teacher of at least 4 layers, it has 3; use "uniform"'],
        ),
        ([1, 2], 3, 12, ["has 2 entries for 3 student layers"]),
        (
            [0, 13],
            2,
            12,
            [
                "layer 0 is not one of the teacher's 1 to 12",
                "layer 13 is not one of the teacher's 1 to 12",
            ],
        ),
        ([6, 3], 2, 12, ["[6, 3] must be in ascending order"]),
        (
            [9, 4, 99],
            2,
            12,
            [
                "layer 99 is not one of the teacher's 1 to 12",
                "has 3 entries for 2 student layers",
                "[9, 4, 99] must be in ascending order",
            ],
        ),
    ],
)
def test_a_map_that_cannot_be_is_refused(
    strategy: str | list[int], student_layers: int, teacher_layers: int, problems: list[str]
) -> None:
    with pytest.raises(RecipeError) as caught:
        map_layers(strategy, student_layers, teacher_layers)
    assert caught.value.headline == "distill.layer_map"
    assert list(caught.value.problems) == problems


def test_the_map_as_a_line() -> None:
    assert describe_map((3, 6, 9, 12)) == "1<-3 2<-6 3<-9 4<-12"
