"""The recipe's sections [export], [quantize], [target], [report] and [card]: after training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from factory.export.forms import FormName, Hardware, auto_forms
from factory.recipe.section import (
    Fraction,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Section,
)


def _list_or_auto(value: object) -> object:
    if isinstance(value, str) and value != "auto":
        raise ValueError('give a list such as ["int8-static", "fp32"], or "auto"')
    return value


# The discriminator makes a mistake one error instead of one for each kind of value.
Forms = Annotated[
    Annotated[list[FormName], Field(min_length=1), Tag("names")]
    | Annotated[Literal["auto"], Tag("auto")],
    Discriminator(lambda value: "auto" if value == "auto" else "names"),
    BeforeValidator(_list_or_auto),
]


class ExportSettings(Section):
    """The ONNX file."""

    opset: Annotated[int, Field(ge=14, le=20)] = 17
    atol: PositiveFloat = Field(
        default=1e-4, description="largest difference of a logit from torch"
    )
    first_token: bool = Field(
        default=True,
        description="compute the last layer for the first token only, which is all the classifier "
        "reads; exact, and less work",
    )
    general_pieces: NonNegativeInt | None = Field(
        default=None,
        description="trim the vocabulary, for a smaller file: keep the tokens of the training rows "
        "and this many of the most frequent others; unset: the whole vocabulary",
    )


class QuantizeSettings(Section):
    """The forms to try; the first that passes gate 2 ships."""

    forms: Forms = Field(
        default="auto",
        description='in order of preference; "auto": those that suit target.hardware, the fastest '
        "first and fp32 last",
    )
    calibration_rows: PositiveInt = Field(
        default=256, description="training rows on which activations are measured"
    )
    smoothing: Fraction = Field(
        default=0.8,
        description="strength of SmoothQuant in the static forms, which moves outliers of "
        "activations into the weights; 0: off",
    )

    def wanted(self, hardware: Hardware) -> tuple[FormName, ...]:
        """The forms that gate 2 tries, each once."""
        names = auto_forms(hardware) if self.forms == "auto" else self.forms
        return tuple(dict.fromkeys(names))

    def written(self, hardware: Hardware) -> tuple[FormName, ...]:
        """The requested forms except fp32, which is always written."""
        return tuple(name for name in self.wanted(hardware) if name != "fp32")


class ReportSettings(Section):
    """Contents of the run's report; does not affect the bundle."""

    texts: NonNegativeInt = Field(
        default=20,
        description="number of texts shown on which teacher and student disagree; 0: none",
    )


class TargetSettings(Section):
    """Where the bundle will run: the forms of "auto", and the shape for latency."""

    hardware: Hardware = Field(
        default="avx2", description="kind of machine; latency is measured on this machine"
    )
    batch_size: PositiveInt = 1
    tokens: PositiveInt | None = Field(
        default=None, description="per text; unset: the dev texts, unchanged"
    )
    threads: PositiveInt = 1


# ISO 639-1 to 639-3, and the hub's special values.
Language = Annotated[str, Field(pattern=r"^([a-z]{2,3}|code|multilingual)$")]
HubName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")]


class CardSettings(Section):
    """Metadata of the bundle's README.md for the Hugging Face Hub; all optional."""

    license: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")] | None = Field(
        default=None, description="identifier such as apache-2.0; unset: none"
    )
    language: list[Language] = Field(default=[], description="of the texts: en, de, ...")
    tags: list[Annotated[str, Field(min_length=1)]] = Field(
        default=[], description="in addition to those that every bundle has"
    )
    datasets: list[HubName] = Field(
        default=[], description="hub names of the data; data.hub is added for you"
    )
    base_model: list[HubName] = Field(
        default=[],
        description="hub names; hub ids of teacher and student.start are added for you",
    )
