"""The native protocol without a server: what is read and what is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from serving.asking import Asked, ProtocolError, write_error
from serving.predictor import Prediction, Predictor
from serving.protocol import read_request, write_response
from serving.settings import Settings

MakeBundle = Callable[..., Path]
LIMITS = Settings(max_texts=3, max_text_characters=10)


@pytest.fixture(scope="module")
def opened(bundle: Path) -> Predictor:
    """The classification bundle, opened once for all examples."""
    return Predictor.open(bundle)


@pytest.mark.parametrize(
    ("body", "inputs", "top_k"),
    [
        ({"text": "good"}, ["good"], None),
        ({"texts": ["a", "b"]}, ["a", "b"], None),
        ({"texts": ["a"], "top_k": 2}, ["a"], 2),
        ({"text": "1234567890"}, ["1234567890"], None),
    ],
)
def test_single_text_forms(
    opened: Predictor, body: dict[str, Any], inputs: list[str], top_k: int | None
) -> None:
    request = read_request(json.dumps(body).encode(), opened, LIMITS)
    assert (request.inputs, request.top_k) == (inputs, top_k)


@pytest.mark.parametrize(
    ("body", "inputs"),
    [
        ({"pair": ["a", "b"]}, [("a", "b")]),
        ({"pairs": [["a", "b"], ["c", "d"]]}, [("a", "b"), ("c", "d")]),
    ],
)
def test_pair_forms(
    make_bundle: MakeBundle, body: dict[str, Any], inputs: list[tuple[str, str]]
) -> None:
    predictor = Predictor.open(make_bundle(text_pair=True))
    assert read_request(json.dumps(body).encode(), predictor, LIMITS).inputs == inputs


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "not JSON"),
        (b"text", 400, "not JSON"),
        (b'{"text": "\xff"}', 400, "not JSON"),
        (b'{"text": "\\ud800"}', 400, "not JSON"),
        (b"[]", 422, "Expected `object`"),
        (b"{}", 422, "exactly one of text, texts, pair, pairs; got none"),
        (b'{"text": "a", "texts": ["b"]}', 422, "got text, texts"),
        (b'{"text": "a", "colour": 1}', 422, "unknown field `colour`"),
        (b'{"text": 1}', 422, "Expected `str`, got `int` - at `$.text`"),
        (b'{"text": null}', 422, "got `null`"),
        (b'{"texts": "a"}', 422, "Expected `array`"),
        (b'{"texts": []}', 422, "texts is empty"),
        (b'{"text": ""}', 422, "input 0 of text has an empty text"),
        (b'{"texts": ["a", " \\n "]}', 422, "input 1 of texts has an empty text"),
        (b'{"text": "12345678901"}', 422, "11 characters, at most 10"),
        (b'{"texts": ["a", "b", "c", "d"]}', 413, "4 entries, at most 3"),
        (b'{"pair": ["a", "b"]}', 422, "tiny takes text or texts, not pair"),
        (b'{"pairs": [["a"]]}', 422, "Expected `array` of length 2"),
        (b'{"text": "a", "top_k": 0}', 422, "`int` >= 1"),
        (b'{"text": "a", "top_k": "1"}', 422, "Expected `int`"),
    ],
)
def test_refusals(opened: Predictor, body: bytes, status: int, message: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_request(body, opened, LIMITS)
    assert caught.value.status == status
    assert message in caught.value.message


def test_pair_model_refuses_texts_and_empty_halves(make_bundle: MakeBundle) -> None:
    predictor = Predictor.open(make_bundle(text_pair=True))
    with pytest.raises(ProtocolError, match="tiny takes pair or pairs, not text"):
        read_request(b'{"text": "a"}', predictor, LIMITS)
    with pytest.raises(ProtocolError, match="input 0 of pair has an empty text"):
        read_request(b'{"pair": ["a", ""]}', predictor, LIMITS)


def test_top_k_needs_labels(make_bundle: MakeBundle) -> None:
    predictor = Predictor.open(make_bundle(task="regression"))
    with pytest.raises(ProtocolError, match="top_k is for labels"):
        read_request(b'{"text": "a", "top_k": 1}', predictor, LIMITS)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["text", "texts", "pair", "top_k", "x"]), inner, max_size=3
        )
    ),
)


@hypothesis_settings(max_examples=300)
@given(body=st.binary(max_size=40) | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_read_or_refused(opened: Predictor, body: bytes) -> None:
    refusal: ProtocolError | None = None
    try:
        request = read_request(body, opened, LIMITS)
    except ProtocolError as error:
        refusal = error
    if refusal is not None:
        assert refusal.status in (400, 413, 422)
        assert refusal.message
    else:
        decoded = json.loads(body)
        assert list(request.inputs) == decoded.get("texts", [decoded.get("text")])


def test_scores_run_from_high_to_low_and_ties_keep_label_order(opened: Predictor) -> None:
    body = write_response(opened, [Prediction((0.25, 0.5, 0.25), 4, True, (0.0,))], Asked([]))
    assert json.loads(body) == {
        "model": {"name": "tiny", "version": "0123456789ab"},
        "predictions": [
            {
                "label": "neutral",
                "score": 0.5,
                "scores": [
                    {"label": "neutral", "score": 0.5},
                    {"label": "negative", "score": 0.25},
                    {"label": "positive", "score": 0.25},
                ],
                "tokens": 4,
                "truncated": True,
            }
        ],
    }


@pytest.mark.parametrize(("top_k", "count"), [(1, 1), (2, 2), (9, 3)])
def test_top_k_cuts_the_scores(opened: Predictor, top_k: int, count: int) -> None:
    body = write_response(opened, [Prediction((0.1, 0.2, 0.7), 4, False, (0.0,))], Asked([], top_k))
    (prediction,) = json.loads(body)["predictions"]
    assert [item["label"] for item in prediction["scores"]] == (
        ["positive", "neutral", "negative"][:count]
    )


def test_regression_has_a_value(make_bundle: MakeBundle) -> None:
    predictor = Predictor.open(make_bundle(task="regression"))
    body = write_response(predictor, [Prediction((-1.5,), 3, False, (0.0,))], Asked([]))
    assert json.loads(body)["predictions"] == [{"value": -1.5, "tokens": 3, "truncated": False}]


def test_error_body() -> None:
    assert json.loads(write_error(404, "nothing", "id1")) == {
        "error": "nothing",
        "error_type": "not_found",
        "request_id": "id1",
    }
