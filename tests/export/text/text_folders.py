"""Small WordPiece tokenizers and networks in folders, for tests of graphs that read text."""

# ruff: noqa: RUF001 letters that look like others are meant here

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from helpers.small_graphs import write_graph
from onnx import TensorProto, helper
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("a", "b", "ab", "ba", "abb", "aab", "bbbb", "E", "e", "é", "i", "ß", "σ", "ς", "1", "नम")
PARTS = ("a", "b", "ab", "bb", "abba", "e", "é", "i", "\u0307", "s", "σ", "1", "中", "!", "स\u094d")
ALONE = ("!", "?", "[", "]", "'", "中", "語", "\uf900", "<")
JAMO = ("\u1100", "각", "##\u1161", "##\u11a8", "##\u302e")
VOCABULARY = (*SPECIAL, *WORDS, *(f"##{part}" for part in PARTS), *ALONE, *JAMO)


def save_tokenizer(
    folder: Path,
    vocabulary: Sequence[str] = VOCABULARY,
    *,
    lowercase: bool = True,
    strip_accents: bool | None = None,
    clean_text: bool = True,
    added: Sequence[Any] = (),
    **model: Any,
) -> Path:
    """Write a tokenizer.json as transformers writes one for a BERT.

    Args:
        added: tokens besides the special ones.
        model: settings of WordPiece.
    """
    numbers = {piece: number for number, piece in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]", **model))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=clean_text, strip_accents=strip_accents, lowercase=lowercase
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(piece, numbers[piece]) for piece in ("[CLS]", "[SEP]")],
    )
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False) for piece in SPECIAL])
    tokenizer.add_tokens(list(added))
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def save_network(
    file: Path,
    labels: int,
    pieces: int = len(VOCABULARY),
    *,
    opset: int = 17,
    output: str = "logits",
) -> Path:
    """A network without layers: a random row per piece and type, added up over the mask."""
    random = np.random.default_rng(5)
    weights = {
        "words": random.normal(size=(pieces, labels)).astype(np.float32),
        "types": random.normal(size=(2, labels)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["word"]),
        helper.make_node("Gather", ["types", "token_type_ids"], ["type"]),
        helper.make_node("Add", ["word", "type"], ["both"]),
        helper.make_node("Constant", [], ["axis"], value_ints=[2]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "axis"], ["column"]),
        helper.make_node("Mul", ["both", "column"], ["kept"]),
        helper.make_node("Constant", [], ["length"], value_ints=[1]),
        helper.make_node("ReduceSum", ["kept", "length"], [output], keepdims=0),
    ]
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = dict.fromkeys(names, TensorProto.INT64)
    return write_graph(file, nodes, inputs, weights, opset, (output,))
