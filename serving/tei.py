"""text-embeddings-inference's shape of /predict: `inputs` in, lists of labels with scores out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from serving.asking import Asked, ProtocolError, check_limits, decode, ranked
from serving.predictor import Prediction, Predictor
from serving.settings import Settings
from serving.tokenization import Inputs


class TeiBody(msgspec.Struct, frozen=True):
    """A text; one or two texts that are one input; or a list of such lists.

    Source: PredictRequest of text-embeddings-inference 1.9; keys it does not know are ignored.
    """

    inputs: str | list[str | list[str]]
    truncate: bool | None = None
    raw_scores: bool = False


@dataclass(frozen=True, slots=True)
class TeiRequest:
    """What is asked, and whether one list answers it or a list of lists."""

    asked: Asked
    single: bool


def read_tei(body: bytes, predictor: Predictor, settings: Settings) -> TeiRequest:
    """Decode and check a body.

    Raises:
        ProtocolError: 400 not JSON, 413 too many texts, 422 anything else that is wrong.
    """
    decoded = decode(body, TeiBody)
    given = decoded.inputs
    nested = [item for item in given if isinstance(item, list)]
    single = isinstance(given, str) or not nested
    if nested and len(nested) < len(given):
        raise ProtocolError(422, "inputs mixes texts and lists; give a list of lists for a batch")
    rows = nested or [[given] if isinstance(given, str) else [str(item) for item in given]]
    wanted = 2 if predictor.text_pair else 1
    for index, row in enumerate(rows):
        if len(row) != wanted:
            kind = "two texts" if predictor.text_pair else "one text"
            raise ProtocolError(
                422, f"input {index} has {len(row)} texts; {predictor.name} takes {kind} each"
            )
    pairs = [(row[0], row[1]) for row in rows if predictor.text_pair]
    inputs: Inputs = pairs or [row[0] for row in rows]
    check_limits("inputs", inputs, settings)
    asked = Asked(
        inputs,
        truncate=bool(decoded.truncate),
        function="none" if decoded.raw_scores else "model",
    )
    return TeiRequest(asked, single)


def write_tei(
    predictor: Predictor, predictions: Sequence[Prediction], request: TeiRequest
) -> bytes:
    """All labels of each input, from high to low score."""
    answers = [ranked(predictor, item, request.asked) for item in predictions]
    return msgspec.json.encode(answers[0] if request.single else answers)
