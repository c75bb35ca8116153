"""How student and teacher are compared: which layers, and which attention heads."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import floor, gcd
from typing import Any

from factory.errors import RecipeError
from factory.recipe.training import DistillSettings, IntermediateSettings
from factory.runtime.progress import say

# The most relation heads chosen when the recipe leaves the number open; the paper has 48.
MOST_CHOSEN_HEADS = 48

LayerMap = tuple[int, ...]  # for each student layer, the teacher layer it learns from


def match_layers(
    settings: DistillSettings, student: Any, teacher: Any
) -> tuple[LayerMap, dict[str, Any]]:
    """The layer map, and facts of how layers and attention are compared; both are logged.

    Args:
        student, teacher: their configurations.
    """
    layer_map = map_layers(settings.layer_map, student.num_hidden_layers, teacher.num_hidden_layers)
    say(f"layer map (student<-teacher): {describe_map(layer_map)}")
    facts: dict[str, Any] = {"layer_map": list(layer_map)}
    if settings.intermediate.epochs > 0:
        heads = choose_relation_heads(settings.intermediate, student, teacher)
        facts["attention"] = _describe_attention(heads, student, teacher)
        if heads is not None:
            say(facts["attention"])
    return layer_map, facts


def map_layers(strategy: str | Sequence[int], student_layers: int, teacher_layers: int) -> LayerMap:
    """Teacher layer for each student layer, both counted from 1.

    uniform is g(m) = m * N / M (TinyBERT, section 3.2), rounded half up where M does not divide
    N, so the last student layer always learns from the last teacher layer: 4 from 6 gives
    2, 3, 5, 6. top is m + N - M, bottom is m. The embedding output (0) always maps to 0.

    Raises:
        RecipeError: the teacher is too shallow for the strategy, or a listed layer is missing.
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
    listed = [int(layer) for layer in strategy]
    problems = [
        f"layer {layer} is not one of the teacher's 1 to {teacher_layers}"
        for layer in listed
        if not 1 <= layer <= teacher_layers
    ]
    if len(listed) != student_layers:
        problems.append(f"has {len(listed)} entries for {student_layers} student layers")
    if listed != sorted(listed):
        problems.append(f"{listed} must be in ascending order")
    if problems:
        raise RecipeError("distill.layer_map", problems)
    return tuple(listed)


def describe_map(layer_map: LayerMap) -> str:
    """The map as one readable line, e.g. `1<-3 2<-6 3<-9 4<-12`."""
    return " ".join(f"{m}<-{layer}" for m, layer in enumerate(layer_map, start=1))


def choose_relation_heads(settings: IntermediateSettings, student: Any, teacher: Any) -> int | None:
    """The number of relation heads; None when attention scores are compared head by head.

    If the recipe sets none, it is the student's head count where that divides both widths, else
    the largest common divisor of the widths up to 48.

    Args:
        student, teacher: their configurations.

    Raises:
        RecipeError: the recipe requires scores and the head counts differ, or the recipe's number
            of relation heads does not divide both widths.
    """
    heads = student.num_attention_heads
    if settings.attention != "relations" and heads == teacher.num_attention_heads:
        return None
    if settings.attention == "scores":
        raise RecipeError(
            "distill.intermediate.attention",
            [
                f'"scores" are compared head by head, but the teacher has '
                f"{teacher.num_attention_heads} heads and the student {heads}; "
                f'set it to "auto" or "relations", or student.heads = {teacher.num_attention_heads}'
            ],
        )
    common = gcd(student.hidden_size, teacher.hidden_size)
    divisors = [number for number in range(1, common + 1) if common % number == 0]
    wanted = settings.relation_heads
    if wanted is None:
        chosen = [number for number in divisors if number <= MOST_CHOSEN_HEADS]
        return heads if heads in divisors else chosen[-1]
    if wanted not in divisors:
        raise RecipeError(
            "distill.intermediate.relation_heads",
            [
                f"{wanted} does not divide both widths, {student.hidden_size} of the student and "
                f"{teacher.hidden_size} of the teacher; possible are "
                f"{', '.join(map(str, divisors))}; or remove the key"
            ],
        )
    return wanted


def _describe_attention(relation_heads: int | None, student: Any, teacher: Any) -> str:
    ours, theirs = student.num_attention_heads, teacher.num_attention_heads
    if relation_heads is None:
        return f"attention scores of {ours} heads"
    if ours == theirs:
        return f"attention relations ({relation_heads} relation heads)"
    return (
        f"the teacher has {theirs} heads, the student {ours}: relations instead of scores "
        f"({relation_heads} relation heads)"
    )
