"""A bundle in other loaders: the names, keys and types that their sources require."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
from helpers.edge_bundles import TEXTS, Edge, edge_parts
from helpers.tiny_models import LABELS
from tokenizers import Tokenizer

from factory.bundle.assemble import copy_files, open_candidate
from serving.errors import BundleError

KINDS = ["single", "pair", "multilabel", "regression"]


def read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


# text-embeddings-inference, commit 0d124dc9 (July 2026)


@pytest.mark.parametrize("kind", KINDS)
def test_its_router_finds_a_classifier(edge: Callable[[str], Edge], kind: str) -> None:
    """router/src/lib.rs: `run`, `get_backend_model_type` and `ModelConfig`."""
    bundle = edge(kind).bundle
    config = read_json(bundle / "config.json")
    assert any(name.endswith("Classification") for name in config["architectures"])
    assert config["model_type"] == "bert"  # the positions of roberta kinds have an offset
    assert isinstance(config["max_position_embeddings"], int)
    assert isinstance(config["pad_token_id"], int)
    labels = ["value"] if kind == "regression" else list(LABELS)
    assert config["id2label"] == {str(number): name for number, name in enumerate(labels)}
    assert config["label2id"] == {name: number for number, name in enumerate(labels)}
    # `OrtBackend::new` accepts float32 only; the router takes the type from config.json
    assert config.get("dtype", "float32") == config.get("torch_dtype", "float32") == "float32"
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    assert tokenizer.encode("a").tokens == ["[CLS]", "a", "[SEP]"]  # it adds none of its own
    assert tokenizer.truncation is None  # it would win over the length asked for


@pytest.mark.parametrize("kind", KINDS)
def test_its_onnx_backend_finds_the_model(edge: Callable[[str], Edge], kind: str) -> None:
    """backends/ort/src/lib.rs: `OrtBackend::new`, `Config`, `prepare_ort_inputs`, `predict`."""
    bundle = edge(kind).bundle
    config = read_json(bundle / "config.json")
    assert isinstance(config["hidden_size"], int)
    assert isinstance(config["num_hidden_layers"], int)
    assert read_json(bundle / "tokenizer_config.json").get("padding_side", "right") == "right"
    assert not (bundle / "model.onnx").exists()  # it would win over onnx/model.onnx
    session = onnxruntime.InferenceSession(bundle / "onnx" / "model.onnx")
    inputs = {item.name: item.type for item in session.get_inputs()}
    # these three it fills; any other input would be left without a value
    assert inputs.pop("input_ids") == inputs.pop("attention_mask") == "tensor(int64)"
    assert inputs in ({}, {"token_type_ids": "tensor(int64)"})
    (output,) = session.get_outputs()
    assert (output.name, output.type) == ("logits", "tensor(float)")
    assert len(output.shape) == 2  # one row per text


# transformers.js 4.3.1 and optimum 2.1


def test_the_names_of_the_files_are_the_ecosystems(edge: Callable[[str], Edge]) -> None:
    """transformers.js loads onnx/model{suffix}.onnx; optimum searches for onnx/model.onnx."""
    bundle = edge("single").bundle
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (bundle / name).is_file()
    names = {path.relative_to(bundle).as_posix() for path in (bundle / "onnx").iterdir()}
    assert names == {"onnx/model.onnx", "onnx/model_quantized.onnx"}
    assert "transformers.js_config" not in read_json(bundle / "config.json")  # external data only


@pytest.mark.parametrize(
    ("where", "file"),
    [
        ({}, "onnx/model.onnx"),
        ({"file_name": "model_quantized.onnx"}, "onnx/model_quantized.onnx"),
        ({"subfolder": "onnx", "file_name": "model.onnx"}, "onnx/model.onnx"),
    ],
)
def test_optimums_pipeline_gives_the_servers_answers(
    edge: Callable[[str], Edge], where: dict[str, str], file: str
) -> None:
    from optimum.onnxruntime import ORTModelForSequenceClassification
    from transformers import AutoTokenizer, pipeline

    given = edge("single")
    classify = pipeline(
        "text-classification",
        model=ORTModelForSequenceClassification.from_pretrained(given.bundle, **where),
        tokenizer=AutoTokenizer.from_pretrained(given.bundle),
    )
    length = read_json(given.bundle / "manifest.json")["max_length"]
    found = [classify(text, truncation=True, max_length=length, top_k=None) for text in TEXTS]
    for answers, expected in zip(found, given.expected(file), strict=True):
        scores = {answer["label"]: answer["score"] for answer in answers}
        assert scores == pytest.approx(expected["scores"], abs=1e-5)
        assert answers[0]["label"] == expected["label"]


def test_a_form_with_weights_in_another_file_is_rejected(
    edge: Callable[[str], Edge], tmp_path: Path
) -> None:
    bundle = edge("single").bundle
    onnx.save(
        onnx.load(bundle / "onnx" / "model.onnx"),
        tmp_path / "split.onnx",
        save_as_external_data=True,
        location="weights",
        size_threshold=0,
    )
    (tmp_path / "new").mkdir()
    copy_files(tmp_path / "new", bundle, {"fp32": tmp_path / "split.onnx"})
    with pytest.raises(
        BundleError, match=r"candidate_fp32\.onnx: onnxruntime cannot load it .*/weights"
    ):
        open_candidate(tmp_path / "new", edge_parts("single"), "fp32")
