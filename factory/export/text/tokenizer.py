"""A tokenizer.json read for the graph; whatever the graph could not do exactly is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory.errors import TextModelError
from factory.export.text.characters import read_characters
from factory.export.text.classes import find_classes
from factory.export.text.graph import TextTables
from factory.export.text.pieces import build_arrays, find_symbols

TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class Specials:
    """Ids of what stands around the texts of a row."""

    cls_id: int
    sep_id: int
    pad_id: int


def read_tables(directory: Path) -> TextTables:
    """The tables of the tokenizer in a folder.

    Raises:
        TextModelError: no tokenizer.json, not a BERT's, or settings the graph has no form for.
    """
    file = directory / TOKENIZER_FILE
    data = _read(file)
    model = data["model"]
    if model.get("type") != "WordPiece":
        raise TextModelError(
            f"{file}: a {model.get('type')} tokenizer; only a BERT's WordPiece can be put into the "
            "graph, serve this one with its bundle"
        )
    vocabulary: dict[str, int] = model["vocab"]
    if model["unk_token"] not in vocabulary:
        raise TextModelError(f"{file}: {model['unk_token']} is not in the vocabulary")
    literals = _literals(file, data["added_tokens"])
    prefix: str = model["continuing_subword_prefix"]
    characters = read_characters(data["normalizer"], data["pre_tokenizer"])
    symbols = find_symbols(vocabulary, prefix, characters, literals)
    return TextTables(
        symbols,
        find_classes(characters, symbols, literals),
        build_arrays(vocabulary, prefix, literals, symbols),
        vocabulary[model["unk_token"]],
        model["max_input_chars_per_word"],
        tuple(piece for piece in vocabulary if set(piece) <= symbols.letters.keys()),
    )


def read_specials(directory: Path) -> Specials:
    """What the tokenizer sets around texts, found by encoding nothing.

    Raises:
        TextModelError: not `[CLS] a [SEP]` and `[CLS] a [SEP] b [SEP]`, the second text of type 1.
    """
    from tokenizers import Tokenizer

    file = directory / TOKENIZER_FILE
    tokenizer = Tokenizer.from_file(str(file))
    padding = tokenizer.padding
    tokenizer.no_truncation()
    tokenizer.no_padding()
    pad_id = padding["pad_id"] if padding else tokenizer.token_to_id("[PAD]") or 0
    single, pair = tokenizer.encode(""), tokenizer.encode("", "")
    filled = tokenizer.encode("", tokenizer.id_to_token(pad_id))
    if len(single.ids) == 2 and single.type_ids == [0, 0] and filled.type_ids == [0, 0, 1, 1]:
        cls_id, sep_id = single.ids
        if pair.ids == [cls_id, sep_id, sep_id] and pair.type_ids == [0, 0, 1]:
            return Specials(cls_id, sep_id, pad_id)
    raise TextModelError(
        f"{file}: an empty text becomes {single.tokens}, an empty pair {pair.tokens}; the graph "
        "writes [CLS] a [SEP] and [CLS] a [SEP] b [SEP] only, serve this tokenizer with its bundle"
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TextModelError(
            f"{file}: cannot be read ({error}); give the folder of a bundle or of a student"
        ) from error
    return data


def _literals(file: Path, added_tokens: list[dict[str, Any]]) -> dict[str, int]:
    """Ids of the tokens that are found in a text as it is written."""
    for token in added_tokens:
        for setting in ("normalized", "lstrip", "rstrip", "single_word"):
            if token.get(setting):
                raise TextModelError(
                    f"{file}: the added token {token['content']!r} has {setting} = true, which "
                    "the graph has no form for; serve this tokenizer with its bundle"
                )
    return {token["content"]: token["id"] for token in added_tokens}
