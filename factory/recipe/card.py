"""The recipe's table [card]: what the model card says that no run can find out."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from factory.recipe.section import Section

# ISO 639-1 to 639-3, and the hub's special values.
Language = Annotated[str, Field(pattern=r"^([a-z]{2,3}|code|multilingual)$")]
HubName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")]


class CardSettings(Section):
    """Metadata of the bundle's README.md, as the Hugging Face Hub reads it; all may be left out."""

    license: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")] | None = Field(
        default=None, description="identifier such as apache-2.0; unset: the card names none"
    )
    language: list[Language] = Field(default=[], description="of the texts: en, de, ...")
    tags: list[Annotated[str, Field(min_length=1)]] = Field(
        default=[], description="besides those that every bundle has"
    )
    datasets: list[HubName] = Field(
        default=[], description="hub names of the data; a hub set of the recipe is known"
    )
    base_model: list[HubName] = Field(
        default=[], description="hub names; a teacher or start from the hub is known"
    )
