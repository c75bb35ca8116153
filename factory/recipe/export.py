"""The recipe's tables [export], [quantize], [target], [report] and [card]: after training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from factory.recipe.section import (
    Fraction,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Section,
)

VariantName = Literal[
    "fp32",
    "fp32-fused",
    "fp16",
    "int8",
    "int8-static",
    "int8-mixed",
    "int8-rows",
    "int8-careful",
    "int8-embeddings",
    "int4",
]
Hardware = Literal["avx2", "avx512-vnni", "arm64", "cuda", "web"]

# What "auto" tries, in an order by measured latency; fp32 loses nothing and comes last. The search
# behind "int8-careful" takes longer than all of these together, so it has to be asked for.
CPU_VARIANTS: tuple[VariantName, ...] = (
    "int8-static", "int8-mixed", "int8-rows", "int8-embeddings", "fp32",
)  # fmt: skip
AUTO_VARIANTS: Mapping[Hardware, tuple[VariantName, ...]] = {
    "avx2": CPU_VARIANTS,
    "avx512-vnni": CPU_VARIANTS,
    "arm64": CPU_VARIANTS,
    "cuda": ("fp16", "fp32-fused", "fp32"),
    "web": CPU_VARIANTS,
}

# Where onnxruntime adds pairs of 8-bit products in 16 bits, which overflow: x86 without VNNI, and
# WebAssembly. Weights of 7 bits cannot overflow, and such a file answers alike everywhere.
SEVEN_BIT_HARDWARE: tuple[Hardware, ...] = ("avx2", "web")

# "int8" scales activations over the whole batch at run time, so that a text's neighbours change its
# answer; the server runs it one text at a time.
NEIGHBOUR_INDEPENDENT: tuple[VariantName, ...] = (
    "fp32", "fp32-fused", "fp16", "int8-static", "int8-mixed", "int8-rows", "int8-careful",
    "int8-embeddings", "int4",
)  # fmt: skip


def _list_or_auto(value: object) -> object:
    if isinstance(value, str) and value != "auto":
        raise ValueError('give a list such as ["int8", "fp32"], or "auto"')
    return value


# A list unless it is the word, so that a mistake is told once and not for both.
Variants = Annotated[
    Annotated[list[VariantName], Field(min_length=1), Tag("names")]
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
        description="cut the vocabulary to what the rows learned on need and so many of the most "
        "frequent other pieces, for a smaller file; unset: the whole vocabulary",
    )


class QuantizeSettings(Section):
    """The forms to try; the first that passes gate 2 ships."""

    variants: Variants = Field(
        default="auto",
        description='in order of preference; "auto": those that suit target.hardware, the fastest '
        "first and fp32 last",
    )
    per_channel: bool = Field(default=True, description="one weight scale per output channel")
    calibration_rows: PositiveInt = Field(
        default=256, description="training rows that activations are measured on"
    )
    calibration: Literal["minimum-maximum", "percentile", "entropy"] = Field(
        default="minimum-maximum",
        description="which range of an activation the static forms spread their levels over: all "
        "of it, all but the outermost 0.01 %, or the most telling part",
    )
    smoothing: Fraction = Field(
        default=0.8,
        description="how much of the outliers of activations the static forms move into the "
        "weights (SmoothQuant); 0: nothing",
    )

    def forms(self, hardware: Hardware) -> tuple[VariantName, ...]:
        """Every variant that is made beside fp32, which always is."""
        wanted = AUTO_VARIANTS[hardware] if self.variants == "auto" else self.variants
        return tuple(name for name in dict.fromkeys(wanted) if name != "fp32")


class ReportSettings(Section):
    """Contents of the run's report; does not affect the bundle."""

    texts: NonNegativeInt = Field(
        default=20,
        description="how many texts to show on which teacher and student disagree; 0: none",
    )


class TargetSettings(Section):
    """Where the bundle will run: what "auto" tries, and the shape at which latency is measured."""

    hardware: Hardware = Field(
        default="avx2", description="the kind of machine; measurements are of this machine"
    )
    batch_size: PositiveInt = 1
    tokens: PositiveInt | None = Field(
        default=None, description="per text; unset: dev texts as they are"
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
