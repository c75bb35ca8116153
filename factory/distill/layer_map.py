"""Which teacher layer each student layer learns from."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import floor

from factory.errors import RecipeError


def map_layers(
    strategy: str | Sequence[int], student_layers: int, teacher_layers: int
) -> tuple[int, ...]:
    """Teacher layer for each student layer, both counted from 1.

    uniform is g(m) = m * N / M (TinyBERT, section 3.2), rounded half up where M does not divide
    N, so the last student layer always learns from the last teacher layer: 4 from 6 gives
    2, 3, 5, 6. top is m + N - M, bottom is m. The embedding output (0) always maps to 0.

    Raises:
        RecipeError: the teacher is too shallow for the strategy, or a listed layer is not there.
    """
    layers = range(1, student_layers + 1)
    if strategy == "uniform":
        half = Fraction(1, 2)
        rounded = (floor(Fraction(m * teacher_layers, student_layers) + half) for m in layers)
        return tuple(max(1, layer) for layer in rounded)
    if strategy in ("top", "bottom"):
        if teacher_layers < student_layers:
            raise RecipeError(
                "distill.layer_map",
                [
                    f'"{strategy}" needs a teacher of at least {student_layers} layers, '
                    f'it has {teacher_layers}; use "uniform"'
                ],
            )
        offset = teacher_layers - student_layers if strategy == "top" else 0
        return tuple(m + offset for m in layers)
    if isinstance(strategy, str):
        raise RecipeError("distill.layer_map", [f'unknown strategy "{strategy}"'])
    return _check_list(tuple(strategy), student_layers, teacher_layers)


def describe_map(layer_map: Sequence[int]) -> str:
    """The map as one readable line, e.g. `1<-3 2<-6 3<-9 4<-12`."""
    return " ".join(f"{m}<-{layer}" for m, layer in enumerate(layer_map, start=1))


def _check_list(
    layers: tuple[int, ...], student_layers: int, teacher_layers: int
) -> tuple[int, ...]:
    problems = []
    if len(layers) != student_layers:
        problems.append(f"has {len(layers)} entries for {student_layers} student layers")
    problems += [
        f"layer {layer} is not one of the teacher's 1 to {teacher_layers}"
        for layer in layers
        if not 1 <= layer <= teacher_layers
    ]
    if list(layers) != sorted(layers):
        problems.append(f"{list(layers)} must not go down")
    if problems:
        raise RecipeError("distill.layer_map", problems)
    return layers
