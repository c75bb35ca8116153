"""What every protocol asks of the model, the limits it keeps, and how it is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import msgspec
import numpy as np

from serving.predictor import Prediction, Predictor, sigmoid, softmax
from serving.settings import Settings
from serving.tokenization import Inputs

# Every status the server answers besides 200, and what its error body calls it.
ERROR_TYPES = {
    400: "malformed",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    408: "too_slow",
    413: "too_large",
    415: "unsupported_media_type",
    422: "validation",
    429: "overloaded",
    431: "header_too_large",
    500: "backend",
    503: "unhealthy",
    504: "timeout",
}


class ProtocolError(Exception):
    """A request answered with an error: a status of ERROR_TYPES and a text for the caller."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        self.message = message
        super().__init__(f"{status}: {message}")


@dataclass(frozen=True, slots=True)
class Asked:
    """Inputs within every limit, and what their answers shall hold.

    Args:
        top_k: how many of the best labels; None: all.
        truncate: whether a text that is too long is cut, or refused.
        function: "model" is softmax or sigmoid, as the model was trained; "none" gives logits.
        threshold: of a multilabel model, in place of its own per label.
    """

    inputs: Inputs
    top_k: int | None = None
    truncate: bool = True
    function: Literal["model", "softmax", "sigmoid", "none"] = "model"
    threshold: float | None = None


class LabelScore(msgspec.Struct, frozen=True):
    """One label with its probability."""

    label: str
    score: float


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of every other status."""

    error: str
    error_type: str
    request_id: str


Body = TypeVar("Body")


def decode(content: bytes, kind: type[Body]) -> Body:
    """A body as what its protocol describes.

    Raises:
        ProtocolError: 400 not JSON, 422 other JSON.
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        raise ProtocolError(422, str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(400, f"the body is not JSON: {error}") from error


def check_limits(field: str, inputs: Inputs, settings: Settings) -> None:
    """Refuse too many inputs, none, and texts that are empty or too long."""
    if not inputs:
        raise ProtocolError(422, f"{field} is empty; give at least one")
    if len(inputs) > settings.max_texts:
        raise ProtocolError(
            413, f"{field} has {len(inputs)} entries, at most {settings.max_texts} are accepted"
        )
    for index, item in enumerate(inputs):
        for text in (item,) if isinstance(item, str) else item:
            if not text.strip():
                raise ProtocolError(422, f"input {index} of {field} has an empty text")
            if len(text) > settings.max_text_characters:
                raise ProtocolError(
                    422,
                    f"input {index} of {field} has {len(text)} characters, "
                    f"at most {settings.max_text_characters} are accepted",
                )


def check_not_cut(predictor: Predictor, predictions: Sequence[Prediction]) -> None:
    """Refuse what was cut, for those who asked for it."""
    for index, item in enumerate(predictions):
        if item.truncated:
            raise ProtocolError(
                422,
                f"input {index} has more than {predictor.manifest.max_length} tokens; shorten it, "
                "or let it be cut with truncate",
            )


def ranked(predictor: Predictor, prediction: Prediction, asked: Asked) -> list[LabelScore]:
    """The scores asked for by label, from high to low; equal ones keep the order of the labels."""
    logits = np.array([prediction.logits], dtype=np.float32)
    scores: Sequence[float] = prediction.scores
    if asked.function == "softmax":
        scores = softmax(logits)[0].tolist()
    elif asked.function == "sigmoid":
        scores = sigmoid(logits)[0].tolist()
    elif asked.function == "none":
        scores = prediction.logits
    named = (LabelScore(*pair) for pair in zip(predictor.labels, scores, strict=True))
    return sorted(named, key=lambda item: -item.score)[: asked.top_k]


def write_error(status: int, message: str, request_id: str) -> bytes:
    """Encode the body of an error."""
    return msgspec.json.encode(ErrorBody(message, ERROR_TYPES[status], request_id))
