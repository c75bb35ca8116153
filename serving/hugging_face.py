"""The shape of Hugging Face's inference toolkit: `inputs` and `parameters` in, lists out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from serving.asking import Asked, ProtocolError, check_limits, decode, ranked
from serving.predictor import Prediction, Predictor
from serving.settings import Settings
from serving.tokenization import Inputs


class TextPair(msgspec.Struct, frozen=True):
    """A text or, of a model for pairs, both."""

    text: str
    text_pair: str | None = None


class Parameters(msgspec.Struct, frozen=True):
    """What text-classification pipelines take; keys they do not know are ignored."""

    top_k: Annotated[int, Meta(ge=1)] | None = None
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = None
    truncation: bool = True


class HuggingFaceBody(msgspec.Struct, frozen=True):
    """One input or a list of them, which is a batch and never a pair."""

    inputs: str | TextPair | list[str | TextPair]
    parameters: Parameters = Parameters()


def read_hugging_face(body: bytes, predictor: Predictor, settings: Settings) -> Asked:
    """Decode and check a body.

    Raises:
        ProtocolError: 400 not JSON, 413 too many texts, 422 anything else that is wrong.
    """
    decoded = decode(body, HuggingFaceBody)
    given = decoded.inputs if isinstance(decoded.inputs, list) else [decoded.inputs]
    rows = [TextPair(item) if isinstance(item, str) else item for item in given]
    for index, row in enumerate(rows):
        if (row.text_pair is not None) != predictor.text_pair:
            kind = "text and text_pair" if predictor.text_pair else "a text without text_pair"
            raise ProtocolError(422, f"input {index}: {predictor.name} takes {kind}")
    pairs = [(row.text, row.text_pair) for row in rows if row.text_pair is not None]
    inputs: Inputs = pairs or [row.text for row in rows]
    check_limits("inputs", inputs, settings)
    wanted = decoded.parameters
    return Asked(inputs, wanted.top_k, wanted.truncation, wanted.function_to_apply or "model")


def write_hugging_face(
    predictor: Predictor, predictions: Sequence[Prediction], asked: Asked
) -> bytes:
    """A list per input, also of one: huggingface_hub's client reads nothing else."""
    return msgspec.json.encode([ranked(predictor, item, asked) for item in predictions])
