"""The recipe's table [prune]: what is removed from a distilled student, and how it recovers."""

from __future__ import annotations

from pydantic import Field

from factory.recipe_section import NonNegativeFloat, PositiveFloat, PositiveInt, Section


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
        description="of it; batch size, schedule and temperature are those of distill.prediction",
    )
