"""Answers of an opened bundle: values, order, batching, and everything that stops it opening."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from helpers.tiny_bundle import CLASSES, VOCABULARY, reference_logits
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.bundle import describe_files, read_manifest, write_manifest
from serving.errors import (
    BundleError,
    InferenceError,
    InputError,
    MissingDependencyError,
    ProviderError,
)
from serving.predictor import Predictor, softmax

MakeBundle = Callable[..., Path]
TEXTS = [
    "good",
    "the film was not very good, it was bad",
    "a fine film",
    "the film was very very very very very very very very bad and very long",
    "bad!",
    "not bad",
]


def reseal(directory: Path, **model_changes: Any) -> None:
    """Change the manifest's model, and make every checksum right again."""
    manifest = read_manifest(directory)
    changed = msgspec.structs.replace(
        manifest,
        model=msgspec.structs.replace(manifest.model, **model_changes),
        files=describe_files(directory, manifest.files),
    )
    write_manifest(directory, changed)


def watch_shapes(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The shape of every run from now on."""
    shapes: list[tuple[int, int]] = []
    session = predictor._session

    class Watched:
        def run(self, names: list[str], feed: dict[str, Any]) -> Any:
            shapes.append(feed["input_ids"].shape)
            return session.run(names, feed)

    monkeypatch.setattr(predictor, "_session", Watched())
    return shapes


def test_attributes_come_from_the_manifest(predictor: Predictor) -> None:
    assert (predictor.name, predictor.version) == ("tiny", "0123456789ab")
    assert (predictor.labels, predictor.task) == (CLASSES, "classification")
    assert predictor.text_pair is False
    assert predictor.manifest.max_length == 16


def test_logits_are_those_computed_by_hand(predictor: Predictor) -> None:
    ids = [VOCABULARY.index(word) for word in ("[CLS]", "good", "film", "[SEP]")]
    logits = predictor.logits(["good film"])
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, [reference_logits(ids, [0] * 4)], atol=1e-6)


def test_pair_logits_use_the_token_types(make_bundle: MakeBundle) -> None:
    predictor = Predictor.open(make_bundle(text_pair=True))
    words = ("[CLS]", "good", "[SEP]", "bad", "[SEP]")
    expected = reference_logits([VOCABULARY.index(word) for word in words], [0, 0, 0, 1, 1])
    np.testing.assert_allclose(predictor.logits([("good", "bad")]), [expected], atol=1e-6)


def test_answers_keep_the_order_and_do_not_depend_on_the_batch(predictor: Predictor) -> None:
    together = predictor.logits(TEXTS)
    alone = np.concatenate([predictor.logits([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert len(np.unique(alone.round(4), axis=0)) == len(TEXTS)  # a wrong order would show


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.text(max_size=40), max_size=12), batch_tokens=st.integers(1, 64))
def test_any_budget_gives_the_same_answers(
    bundle: Path, texts: list[str], batch_tokens: int
) -> None:
    predictor = Predictor.open(bundle, verify=False, batch_tokens=batch_tokens)
    expected = [reference_logits(e.input_ids, e.token_type_ids) for e in predictor.tokenize(texts)]
    reference = np.array(expected, dtype=np.float32).reshape(len(texts), 3)
    np.testing.assert_allclose(predictor.logits(texts), reference, atol=1e-5)


def test_micro_batches_are_sorted_and_within_the_budget(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor.open(bundle, batch_tokens=16)
    shapes = watch_shapes(predictor, monkeypatch)
    predictor.logits(["good", "the film was very good", "bad", "a fine film", "not"])
    # lengths with [CLS] and [SEP]: 3, 7, 3, 5, 3
    assert shapes == [(3, 3), (2, 7)]


def test_a_text_over_the_budget_still_runs(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor.open(bundle, batch_tokens=2)
    shapes = watch_shapes(predictor, monkeypatch)
    predictor.logits(["good", "bad"])
    assert shapes == [(1, 3), (1, 3)]


def test_batch_dependent_model_runs_one_text_at_a_time(make_bundle: MakeBundle) -> None:
    honest = Predictor.open(
        make_bundle("honest", batch_dependent=True, neighbour_independent=False)
    )
    alone = np.concatenate([honest.logits([text]) for text in TEXTS])
    np.testing.assert_array_equal(honest.logits(TEXTS), alone)
    # the same graph under a false flag shows that the flag is what keeps answers apart
    false_flag = Predictor.open(
        make_bundle("false", batch_dependent=True, neighbour_independent=True)
    )
    assert np.abs(false_flag.logits(TEXTS) - alone).max() > 1e-2


def test_predictions_are_probabilities_with_token_counts(predictor: Predictor) -> None:
    short, long = predictor.predict([TEXTS[0], TEXTS[3]])
    raw = predictor.logits([TEXTS[0]])[0].astype(float)
    exponentials = [math.exp(value) for value in raw]
    assert short.scores == pytest.approx([value / sum(exponentials) for value in exponentials])
    assert sum(long.scores) == pytest.approx(1.0, abs=1e-12)
    assert (short.tokens, short.truncated) == (3, False)
    assert (long.tokens, long.truncated) == (16, True)


def test_regression_answers_the_raw_value(make_bundle: MakeBundle) -> None:
    predictor = Predictor.open(make_bundle(task="regression"))
    (prediction,) = predictor.predict(["a fine film"])
    assert prediction.scores == (float(predictor.logits(["a fine film"])[0, 0]),)


def test_softmax_of_extreme_logits() -> None:
    scores = softmax(np.array([[1000.0, 1000.0], [-1000.0, 0.0]], dtype=np.float32))
    assert scores.dtype == np.float64
    np.testing.assert_array_equal(scores, [[0.5, 0.5], [0.0, 1.0]])


def test_no_inputs_give_no_answers(predictor: Predictor) -> None:
    assert predictor.predict([]) == []
    assert predictor.logits([]).shape == (0, 3)


@pytest.mark.parametrize("inputs", ["one text", [("a", "b")], [["a", "b"]], [None], ["a", 3]])
def test_single_text_model_refuses_other_inputs(predictor: Predictor, inputs: Any) -> None:
    with pytest.raises(InputError, match=r"takes single texts|not one text"):
        predictor.predict(inputs)


@pytest.mark.parametrize(
    "inputs", [["a"], [("a",)], [("a", "b", "c")], [("a", None)], [["a", "b"]]]
)
def test_pair_model_refuses_other_inputs(make_bundle: MakeBundle, inputs: Any) -> None:
    predictor = Predictor.open(make_bundle(text_pair=True))
    with pytest.raises(InputError, match="input 0: tiny takes pairs of texts"):
        predictor.logits(inputs)


def test_failing_model_is_an_inference_error(predictor: Predictor) -> None:
    with pytest.raises(InferenceError, match="onnxruntime failed on a batch of 1 x 3 tokens"):
        predictor.predict(["poison"])
    assert len(predictor.predict(["good"])) == 1


def test_value_that_is_not_a_number_is_an_inference_error(predictor: Predictor) -> None:
    assert np.isnan(predictor.logits(["nanny"])).all()
    with pytest.raises(InferenceError, match="not finite"):
        predictor.predict(["nanny"])


def test_corrupted_bundle_does_not_open(make_bundle: MakeBundle) -> None:
    directory = make_bundle()
    with (directory / "model.onnx").open("r+b") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match=r"model\.onnx has sha256"):
        Predictor.open(directory)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": ["input_ids", "attention_mask"]}, "graph inputs are"),
        ({"inputs": ["input_ids", "attention_mask", "positions"]}, "graph inputs are"),
        ({"output": "scores"}, "graph outputs are"),
    ],
)
def test_graph_must_match_the_manifest(
    make_bundle: MakeBundle, changes: dict[str, Any], message: str
) -> None:
    directory = make_bundle()
    reseal(directory, **changes)
    with pytest.raises(BundleError, match=message):
        Predictor.open(directory)


def test_graph_input_of_another_type_or_name(make_bundle: MakeBundle) -> None:
    directory = make_bundle()
    model = onnx.load(str(directory / "model.onnx"))
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT32
    extra = onnx.helper.make_tensor_value_info("position_ids", onnx.TensorProto.INT64, [1])
    model.graph.input.append(extra)
    onnx.save(model, str(directory / "model.onnx"))
    reseal(directory)
    with pytest.raises(BundleError, match="3 problems") as caught:
        Predictor.open(directory)
    assert "none of input_ids" in caught.value.problems[1]
    assert "input_ids is tensor(int32)" in caught.value.problems[2]


def test_number_of_labels_must_match_the_graph(make_bundle: MakeBundle) -> None:
    directory = make_bundle()
    manifest = read_manifest(directory)
    write_manifest(directory, msgspec.structs.replace(manifest, labels=["no", "yes"]))
    with pytest.raises(BundleError, match=r"shape \(1, 3\), the manifest lists 2 labels"):
        Predictor.open(directory)


def test_max_length_the_model_cannot_take(make_bundle: MakeBundle) -> None:
    assert Predictor.open(make_bundle("enough", positions=16)).predict(["good"])
    with pytest.raises(BundleError, match="the model does not run"):
        Predictor.open(make_bundle("short", positions=15))


def test_file_that_is_no_model(make_bundle: MakeBundle) -> None:
    directory = make_bundle()
    (directory / "model.onnx").write_bytes(b"no model")
    reseal(directory)
    with pytest.raises(BundleError, match="onnxruntime cannot load it"):
        Predictor.open(directory)


def test_provider_that_is_not_installed(bundle: Path) -> None:
    assert "CUDAExecutionProvider" not in onnxruntime.get_available_providers()
    with pytest.raises(ProviderError, match="CUDAExecutionProvider is not in this onnxruntime"):
        Predictor.open(bundle, provider="CUDAExecutionProvider")


def test_provider_that_falls_back_to_another(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # a driver that fails looks like this: listed as available, replaced when the session opens
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(ProviderError, match="asked for CUDAExecutionProvider"),
    ):
        Predictor.open(bundle, provider="CUDAExecutionProvider")


def test_missing_onnxruntime_names_the_remedy(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'tinybert-factory\[cpu\]'"):
        Predictor.open(bundle)
