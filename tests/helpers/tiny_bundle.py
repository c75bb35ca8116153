"""A real bundle of a few kilobytes, built in code: WordPiece tokenizer, ONNX graph, manifest.

The graph answers mean(embedding[token] + type_embedding[type]) @ weights + bias over the tokens
that the attention mask keeps, so `reference_logits` can say by hand what it must answer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from msgspec import UNSET
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from serving.bundle import Manifest, ModelFile, describe_files, write_manifest

CLASSES = ("negative", "neutral", "positive")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("the", "film", "was", "good", "bad", "not", "very", "fine", "a", "##ly", "##ness")
# "nanny" has an embedding that is not a number; "poison", the last, has no embedding at all
VOCABULARY = (
    *SPECIAL,
    *WORDS,
    *"bcdefghijklmnopqrstuvwxyz0123456789.,!?-'",
    *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789"),
    "nanny",
    "poison",
)
WIDTH = 8


def embedding() -> NDArray[np.float32]:
    """Token vectors: (vocabulary - 1, width)."""
    rows = np.random.default_rng(1).normal(size=(len(VOCABULARY) - 1, WIDTH)).astype(np.float32)
    rows[VOCABULARY.index("nanny")] = np.nan
    return rows


def type_embedding() -> NDArray[np.float32]:
    """Vectors of the first and the second text of a pair: (2, width)."""
    return np.random.default_rng(2).normal(size=(2, WIDTH)).astype(np.float32)


def output_weights(labels: int) -> NDArray[np.float32]:
    """The classifier: (width, labels)."""
    return np.random.default_rng(3).normal(size=(WIDTH, labels)).astype(np.float32)


def reference_logits(
    ids: Sequence[int], types: Sequence[int], labels: int = len(CLASSES)
) -> NDArray[np.float32]:
    """What the graph must answer for one input: (labels,)."""
    vectors = embedding()[list(ids)] + type_embedding()[list(types)]
    return vectors.mean(axis=0) @ output_weights(labels)


def tiny_tokenizer() -> Tokenizer:
    """A lower-casing BERT tokenizer with padding and truncation stored in it, as a trap."""
    vocabulary = {word: index for index, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(word, vocabulary[word]) for word in ("[CLS]", "[SEP]")],
    )
    tokenizer.enable_padding(length=24, pad_id=0, pad_token="[PAD]")
    tokenizer.enable_truncation(5)
    return tokenizer


def tiny_model(
    labels: int, *, batch_dependent: bool = False, positions: int | None = None
) -> onnx.ModelProto:
    """The graph; `batch_dependent` scales every answer by the largest value of the whole batch,
    as a dynamically quantized model does; `positions` is the longest input that runs."""
    constants = {
        "embedding": embedding(),
        "type_embedding": type_embedding(),
        "weights": output_weights(labels),
        "last": np.array([2], dtype=np.int64),
        "sequence": np.array([1], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["embedding", "input_ids"], ["words"]),
        helper.make_node("Gather", ["type_embedding", "token_type_ids"], ["types"]),
        helper.make_node("Add", ["words", "types"], ["vectors"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["wide_mask"]),
        helper.make_node("Mul", ["vectors", "wide_mask"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "sequence"], ["total"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "sequence"], ["count"], keepdims=1),
        helper.make_node("Div", ["total", "count"], ["mean"]),
        helper.make_node("MatMul", ["mean", "weights"], ["plain"]),
        helper.make_node("ReduceMax", ["kept"], ["largest"], keepdims=0),
        helper.make_node("Mul", ["plain", "largest"], ["scaled"]),
    ]
    answer = "scaled" if batch_dependent else "plain"
    if positions is not None:
        # a table of positions, looked up by each token's place; its values are zero
        constants["positions"] = np.zeros(positions, dtype=np.float32)
        constants["one"] = np.array(1, dtype=np.int64)
        nodes += [
            helper.make_node("CumSum", ["attention_mask", "one"], ["place"]),
            helper.make_node("Sub", ["place", "one"], ["place_from_zero"]),
            helper.make_node("Gather", ["positions", "place_from_zero"], ["place_values"]),
            helper.make_node("ReduceSum", ["place_values", "sequence"], ["zeros"], keepdims=1),
            helper.make_node("Add", [answer, "zeros"], ["logits"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", [answer], ["logits"]))
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch_size", "sequence_length"])
        for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch_size", labels])
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, [output], initializers)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="tests"
    )
    onnx.checker.check_model(model)
    return model


def write_tiny_bundle(
    directory: Path,
    *,
    task: str = "classification",
    labels: Sequence[str] | None = None,
    text_pair: bool = False,
    max_length: int = 16,
    neighbour_independent: bool = True,
    batch_dependent: bool = False,
    positions: int | None = None,
    thresholds: Sequence[float] | None = None,
) -> Manifest:
    """Write a complete bundle into a new directory and give back its manifest."""
    names = list(labels or (("value",) if task == "regression" else CLASSES))
    directory.mkdir(parents=True)
    model = tiny_model(len(names), batch_dependent=batch_dependent, positions=positions)
    onnx.save(model, str(directory / "model.onnx"))
    tiny_tokenizer().save(str(directory / "tokenizer.json"))
    configuration = {"tokenizer_class": "BertTokenizerFast", "do_lower_case": True}
    (directory / "tokenizer_config.json").write_text(json.dumps(configuration), "utf-8")
    manifest = Manifest(
        name="tiny",
        version="0123456789ab",
        task=task,  # type: ignore[arg-type]
        labels=names,
        thresholds=UNSET if thresholds is None else list(thresholds),
        text_pair=text_pair,
        max_length=max_length,
        model=ModelFile(
            file="model.onnx",
            form="fp32",
            inputs=["input_ids", "attention_mask", "token_type_ids"],
            output="logits",
            opset=17,
            neighbour_independent=neighbour_independent,
        ),
        files=describe_files(directory, ["model.onnx", "tokenizer.json", "tokenizer_config.json"]),
    )
    write_manifest(directory, manifest)
    return manifest
