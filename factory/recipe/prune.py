"""The recipe's table [prune]: what is removed from a distilled student, and how it recovers."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo

from factory.recipe.section import NonNegativeFloat, PositiveFloat, PositiveInt, Section


class PruneSettings(Section):
    """Feed-forward neurons removed by importance, then a short training on the teacher's logits."""

    neurons: PositiveInt = Field(
        description="feed-forward neurons kept in each layer; less than student.intermediate"
    )
    calibration_rows: PositiveInt = Field(
        default=1024, description="of the rows learned on, that importance is measured on"
    )
    epochs: NonNegativeFloat = Field(
        default=1.0, description="of the training afterwards; 0: none, what is left stays as it is"
    )
    learning_rate: PositiveFloat = Field(
        default=5e-5,
        description="of it; batch size and temperature are those of distill.prediction",
    )


def _removes_something(prune: PruneSettings | None, info: ValidationInfo) -> PruneSettings | None:
    student = info.data.get("student")  # not there when it has problems of its own
    if prune is not None and student is not None and prune.neurons >= student.intermediate:
        raise ValueError(
            f"neurons {prune.neurons} removes nothing from the student's {student.intermediate} "
            "(student.intermediate); set it lower, or leave out the section"
        )
    return prune


# A field of the recipe, behind its field `student`.
Pruning = Annotated[PruneSettings | None, AfterValidator(_removes_something)]
