"""The native protocol: requests checked, predictions and errors as JSON; knows no web framework."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from serving.asking import Asked, LabelScore, ProtocolError, check_limits, decode, ranked
from serving.predictor import Prediction, Predictor
from serving.settings import Settings
from serving.tokenization import Inputs


class PredictBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /predict: exactly one of the four inputs."""

    text: str | UnsetType = UNSET
    texts: list[str] | UnsetType = UNSET
    pair: tuple[str, str] | UnsetType = UNSET
    pairs: list[tuple[str, str]] | UnsetType = UNSET
    top_k: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    truncate: bool = True
    raw_scores: bool = False
    threshold: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET


class ModelIdentity(msgspec.Struct, frozen=True):
    """Which bundle answered."""

    name: str
    version: str


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


Descriptions = list[ClassPrediction] | list[LabelsPrediction] | list[ValuePrediction]


class PredictResponse(msgspec.Struct, frozen=True):
    """The body of a 200: one prediction per input, in input order."""

    model: ModelIdentity
    predictions: Descriptions


def read_request(body: bytes, predictor: Predictor, settings: Settings) -> Asked:
    """Decode and check the body of POST /predict.

    Raises:
        ProtocolError: 400 not JSON, 413 too many texts, 422 anything else that is wrong.
    """
    return check_request(decode(body, PredictBody), predictor, settings)


def check_request(decoded: PredictBody, predictor: Predictor, settings: Settings) -> Asked:
    """Check a decoded body against the model and the limits.

    Raises:
        ProtocolError: 413 too many texts, 422 anything else that is wrong.
    """
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
    check_limits(field, inputs, settings)
    top_k = None if isinstance(decoded.top_k, UnsetType) else decoded.top_k
    if top_k is not None and predictor.task == "regression":
        raise ProtocolError(422, f"{predictor.name} answers a value; top_k is for labels")
    threshold = None if isinstance(decoded.threshold, UnsetType) else decoded.threshold
    if threshold is not None and predictor.task != "multilabel":
        raise ProtocolError(422, f"{predictor.name} is no multilabel model; threshold is for these")
    function: Literal["model", "none"] = "none" if decoded.raw_scores else "model"
    return Asked(inputs, top_k, decoded.truncate, function, threshold)


def write_response(predictor: Predictor, predictions: Sequence[Prediction], asked: Asked) -> bytes:
    """Encode predictions as the body of a 200."""
    identity = ModelIdentity(predictor.name, predictor.version)
    answers = describe_predictions(predictor, predictions, asked)
    return msgspec.json.encode(PredictResponse(identity, answers))


def describe_predictions(
    predictor: Predictor, predictions: Sequence[Prediction], asked: Asked
) -> Descriptions:
    """Predictions in the words of the native protocol."""
    if predictor.task == "regression":
        return [
            ValuePrediction(item.scores[0], item.tokens, item.truncated) for item in predictions
        ]
    if predictor.task == "multilabel":
        return [_labels_prediction(predictor, item, asked) for item in predictions]
    return [_class_prediction(predictor, item, asked) for item in predictions]


def _class_prediction(
    predictor: Predictor, prediction: Prediction, asked: Asked
) -> ClassPrediction:
    scores = ranked(predictor, prediction, asked)
    best = scores[0]
    return ClassPrediction(best.label, best.score, scores, prediction.tokens, prediction.truncated)


def _labels_prediction(
    predictor: Predictor, prediction: Prediction, asked: Asked
) -> LabelsPrediction:
    decided = prediction.applies or ()
    if asked.threshold is not None:
        decided = tuple(score >= asked.threshold for score in prediction.scores)
    applies = dict(zip(predictor.labels, decided, strict=True))
    everything = ranked(predictor, prediction, replace(asked, top_k=None))
    labels = [item.label for item in everything if applies[item.label]]
    shown = everything[: asked.top_k]
    return LabelsPrediction(labels, shown, prediction.tokens, prediction.truncated)
