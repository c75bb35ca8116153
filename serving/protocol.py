"""The native protocol: requests checked, predictions and errors as JSON; knows no web framework."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from serving.predictor import Prediction, Predictor
from serving.settings import Settings
from serving.tokenization import Inputs

# Every status the server answers besides 200, and what its error body calls it.
ERROR_TYPES = {
    400: "malformed",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_encoding",
    422: "validation",
    429: "overloaded",
    500: "backend",
    503: "unhealthy",
}


class ProtocolError(Exception):
    """A request answered with an error: a status of ERROR_TYPES and a text for the caller."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        self.message = message
        super().__init__(f"{status}: {message}")


class PredictBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /predict: exactly one of the four inputs."""

    text: str | UnsetType = UNSET
    texts: list[str] | UnsetType = UNSET
    pair: tuple[str, str] | UnsetType = UNSET
    pairs: list[tuple[str, str]] | UnsetType = UNSET
    top_k: Annotated[int, Meta(ge=1)] | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """A request within every limit; `top_k` None asks for all labels."""

    inputs: Inputs
    top_k: int | None


class ModelIdentity(msgspec.Struct, frozen=True):
    """Which bundle answered."""

    name: str
    version: str


class LabelScore(msgspec.Struct, frozen=True):
    """One label with its probability."""

    label: str
    score: float


class ClassPrediction(msgspec.Struct, frozen=True):
    """The best label, and the scores from high to low."""

    label: str
    score: float
    scores: list[LabelScore]
    tokens: int
    truncated: bool


class LabelsPrediction(msgspec.Struct, frozen=True):
    """The labels that apply, possibly none, and the scores; both from high to low score."""

    labels: list[str]
    scores: list[LabelScore]
    tokens: int
    truncated: bool


class ValuePrediction(msgspec.Struct, frozen=True):
    """The value of a regression."""

    value: float
    tokens: int
    truncated: bool


class PredictResponse(msgspec.Struct, frozen=True):
    """The body of a 200: one prediction per input, in input order."""

    model: ModelIdentity
    predictions: list[ClassPrediction] | list[LabelsPrediction] | list[ValuePrediction]


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of every other status."""

    error: str
    error_type: str
    request_id: str


def read_request(body: bytes, predictor: Predictor, settings: Settings) -> PredictRequest:
    """Decode and check the body of POST /predict.

    Raises:
        ProtocolError: 400 not JSON, 413 too many texts, 422 anything else that is wrong.
    """
    try:
        decoded = msgspec.json.decode(body, type=PredictBody)
    except msgspec.ValidationError as error:
        raise ProtocolError(422, str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(400, f"the body is not JSON: {error}") from error
    given = [name for name in ("text", "texts", "pair", "pairs") if getattr(decoded, name) != UNSET]
    if len(given) != 1:
        raise ProtocolError(
            422, f"give exactly one of text, texts, pair, pairs; got {', '.join(given) or 'none'}"
        )
    (field,) = given
    wants_pairs = field in ("pair", "pairs")
    if wants_pairs != predictor.text_pair:
        allowed = "pair or pairs" if predictor.text_pair else "text or texts"
        raise ProtocolError(422, f"{predictor.name} takes {allowed}, not {field}")
    value = getattr(decoded, field)
    inputs: Inputs = value if field in ("texts", "pairs") else [value]
    _check_limits(field, inputs, settings)
    top_k = None if isinstance(decoded.top_k, UnsetType) else decoded.top_k
    if top_k is not None and predictor.task == "regression":
        raise ProtocolError(422, f"{predictor.name} answers a value; top_k is for labels")
    return PredictRequest(inputs, top_k)


def _check_limits(field: str, inputs: Inputs, settings: Settings) -> None:
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


def write_response(
    predictor: Predictor, predictions: Sequence[Prediction], top_k: int | None
) -> bytes:
    """Encode predictions as the body of a 200."""
    answers: list[ClassPrediction] | list[LabelsPrediction] | list[ValuePrediction]
    if predictor.task == "regression":
        answers = [
            ValuePrediction(item.scores[0], item.tokens, item.truncated) for item in predictions
        ]
    elif predictor.task == "multilabel":
        answers = [_labels_prediction(predictor.labels, item, top_k) for item in predictions]
    else:
        answers = [_class_prediction(predictor.labels, item, top_k) for item in predictions]
    identity = ModelIdentity(predictor.name, predictor.version)
    return msgspec.json.encode(PredictResponse(identity, answers))


def _class_prediction(
    labels: Sequence[str], prediction: Prediction, top_k: int | None
) -> ClassPrediction:
    ranked = _ranked(labels, prediction)
    best = ranked[0]
    return ClassPrediction(
        best.label, best.score, ranked[:top_k], prediction.tokens, prediction.truncated
    )


def _labels_prediction(
    labels: Sequence[str], prediction: Prediction, top_k: int | None
) -> LabelsPrediction:
    applies = dict(zip(labels, prediction.applies or (), strict=True))
    ranked = _ranked(labels, prediction)
    decided = [item.label for item in ranked if applies[item.label]]
    return LabelsPrediction(decided, ranked[:top_k], prediction.tokens, prediction.truncated)


def _ranked(labels: Sequence[str], prediction: Prediction) -> list[LabelScore]:
    """Name and order the scores; equal scores keep the order of the labels."""
    scores = zip(labels, prediction.scores, strict=True)
    return sorted((LabelScore(*pair) for pair in scores), key=lambda item: -item.score)


def write_error(status: int, message: str, request_id: str) -> bytes:
    """Encode the body of an error."""
    return msgspec.json.encode(ErrorBody(message, ERROR_TYPES[status], request_id))
