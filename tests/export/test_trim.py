"""Fewer word pieces: covered text gets the same tokens and logits, bit for bit."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_models import (
    SPECIAL,
    VOCABULARY,
    open_tiny,
    tiny_bert,
    tiny_split,
    tiny_tokenizer,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer

from factory.errors import VocabularyError
from factory.export.onnx import export_onnx
from factory.export.parity import check_parity
from factory.export.trim import (
    EMBEDDINGS,
    choose_pieces,
    measure_trim,
    needed_pieces,
    trim_student,
)

PIECES = ("a", "b", "ab", "ba", "abb", "##a", "##b", "##ab", "##ba", "##bb", "##abb")


def save_pieces(folder: Path, pieces: Sequence[str]) -> Path:
    """A folder with a tokenizer of the given pieces and an embedding table that counts up."""
    vocabulary = (*SPECIAL, *pieces)
    tiny_tokenizer(vocabulary).save_pretrained(folder)
    table = torch.arange(len(vocabulary) * 2.0).view(-1, 2)
    save_file({EMBEDDINGS: table}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(
        json.dumps({"vocab_size": len(vocabulary), "pad_token_id": 0})
    )
    return folder


def pieces_of(folder: Path, text: str) -> list[str]:
    found: list[str] = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).tokens
    return found


def greedy(word: str, pieces: Sequence[str]) -> tuple[list[str], bool]:
    """A plain WordPiece: the pieces it takes of a word, and whether it reached the end."""
    taken: list[str] = []
    rest = word
    while rest:
        fitting = [
            size for size in range(1, len(rest) + 1) if ("##" * bool(taken)) + rest[:size] in pieces
        ]
        if not fitting:
            return taken, False
        taken.append(("##" * bool(taken)) + rest[: max(fitting)])
        rest = rest[max(fitting) :]
    return taken, True


@settings(max_examples=40, deadline=None)
@given(
    pieces=st.lists(st.sampled_from(PIECES), unique=True),
    dropped=st.sets(st.sampled_from(PIECES)),
    words=st.lists(st.text("abc", min_size=1, max_size=7), max_size=6),
)
@example(pieces=["a", "ab", "##bb"], dropped={"ab"}, words=["abb"])  # [UNK], a word without "ab"
@example(pieces=["a", "ab", "##bb"], dropped=set(), words=["abb", "a"])
def test_text_whose_pieces_are_kept_is_tokenized_alike(
    pieces: list[str], dropped: set[str], words: list[str]
) -> None:
    expected: Counter[str] = Counter(["[CLS]", "[SEP]"])
    with tempfile.TemporaryDirectory() as scratch:
        source, target = save_pieces(Path(scratch) / "source", pieces), Path(scratch) / "target"
        kept = [piece for piece in pieces if piece not in dropped]
        trim_student(source, target, [*SPECIAL, *kept])
        for word in words:
            taken, ended = greedy(word, pieces)
            expected.update(taken if ended else [*taken, "[UNK]"])
            wanted = ["[CLS]", *(taken if ended else ["[UNK]"]), "[SEP]"]
            assert pieces_of(source, word) == wanted
            if set(taken) <= set(kept):
                assert pieces_of(target, word) == wanted
        assert needed_pieces(source, [" ".join(words)]) == expected


def test_a_word_too_long_for_the_tokenizer_needs_no_pieces(tmp_path: Path) -> None:
    source = save_pieces(tmp_path / "source", PIECES)
    counts = needed_pieces(source, ["ab" * 51])
    assert counts == {"[CLS]": 1, "[UNK]": 1, "[SEP]": 1}


def test_what_is_chosen_beside_the_base(tmp_path: Path) -> None:
    pieces = ("[unused0]", "one", "a", "two", "three", "##ing", "##a", "four", "five")
    source = save_pieces(tmp_path / "source", pieces)
    counts = {"[CLS]": 9, "five": 2}
    # in the order of the vocabulary: what is counted, single characters, then the first others
    assert choose_pieces(source, counts, 0) == [*SPECIAL, "a", "##a", "five"]
    wanted = [*SPECIAL, "one", "a", "two", "three", "##a", "five"]
    assert choose_pieces(source, counts, 3) == wanted
    everything = [*SPECIAL, *(piece for piece in pieces if piece != "[unused0]")]
    assert choose_pieces(source, counts, 1000) == everything
    assert choose_pieces(source, {}, 0) == [*SPECIAL, "a", "##a"]


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    """A tiny student whose special tokens do not stand first, as in published vocabularies."""
    vocabulary = ("[unused0]", VOCABULARY[5], *VOCABULARY[:5], "[unused1]", *VOCABULARY[6:])
    model = tiny_bert(vocab_size=len(vocabulary), pad_token_id=2)
    model.save_pretrained(tmp_path / "student")
    tiny_tokenizer(vocabulary).save_pretrained(tmp_path / "student")
    return tmp_path / "student"


def test_logits_are_the_same_bit_for_bit(moved: Path, tmp_path: Path) -> None:
    texts = tiny_split("dev", 40, seed=3).texts
    counts = needed_pieces(moved, texts)
    trim_student(moved, tmp_path / "trimmed", choose_pieces(moved, counts, 0))
    whole, trimmed = open_tiny(moved), open_tiny(tmp_path / "trimmed")
    assert trimmed.model.config.vocab_size < whole.model.config.vocab_size
    assert np.array_equal(trimmed.logits(texts), whole.logits(texts))
    pairs = list(zip(texts, reversed(texts), strict=True))
    assert np.array_equal(trimmed.logits(pairs), whole.logits(pairs))


def test_every_file_with_ids_is_rewritten(moved: Path, tmp_path: Path) -> None:
    kept = [*SPECIAL, "broken", "the", "##s", "s"]
    before = load_file(moved / "model.safetensors")
    facts = trim_student(moved, tmp_path / "trimmed", kept)
    # by old id: "broken" stood before the special tokens
    order = ["broken", *SPECIAL, "the", "s", "##s"]
    assert facts == {"pieces_before": len(VOCABULARY) + 2, "pieces": len(order)}
    folder = tmp_path / "trimmed"
    assert (folder / "vocab.txt").read_text().split() == order
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.convert_ids_to_tokens(range(len(order))) == order
    assert len(tokenizer) == len(order)
    assert (tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.mask_token_id) == (1, 3, 5)
    assert tokenizer("broken the")["input_ids"] == [3, 0, 6, 4]
    config = json.loads((folder / "config.json").read_text())
    assert (config["vocab_size"], config["pad_token_id"]) == (len(order), 1)
    after = load_file(folder / "model.safetensors")
    old = AutoTokenizer.from_pretrained(moved)
    rows = old.convert_tokens_to_ids(order)
    assert torch.equal(after.pop(EMBEDDINGS), before.pop(EMBEDDINGS)[rows])
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in after)


def test_the_slow_tokenizers_template_is_renumbered(moved: Path, tmp_path: Path) -> None:
    """BertProcessing names the ids of its tokens by itself."""
    from tokenizers.processors import BertProcessing

    file = moved / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.post_processor = BertProcessing(("[SEP]", 5), ("[CLS]", 4))
    tokenizer.enable_padding(pad_id=2, pad_token="[PAD]", length=8)
    tokenizer.save(str(file))
    trim_student(moved, tmp_path / "trimmed", [*SPECIAL, "the"])
    trimmed = Tokenizer.from_file(str(tmp_path / "trimmed" / "tokenizer.json"))
    assert trimmed.encode("the").ids == [2, 5, 3, 0, 0, 0, 0, 0]
    assert trimmed.encode("the").tokens[:4] == ["[CLS]", "the", "[SEP]", "[PAD]"]


def test_a_trimmed_student_is_exported_with_parity(moved: Path, tmp_path: Path) -> None:
    trim_student(moved, tmp_path / "trimmed", choose_pieces(moved, {}, 5))
    export_onnx(tmp_path / "trimmed", tmp_path / "model.onnx", 17)
    check_parity(tmp_path / "model.onnx", open_tiny(tmp_path / "trimmed"), atol=1e-4)


def test_what_the_trim_changes_is_measured(tmp_path: Path) -> None:
    source = save_pieces(tmp_path / "source", ("a", "b", "ab", "##b", "##ab"))
    trim_student(source, tmp_path / "target", [*SPECIAL, "a", "##b"])
    texts = ["a", "ab a", "b", "aab", "zz"]
    # before: a | ab a | b | a ##ab | [UNK];  after: a | a ##b a | [UNK] | [UNK] | [UNK]
    facts = measure_trim(source, tmp_path / "target", texts, max_length=16)
    assert facts == {
        "rows": 5,
        "changed_rows": 3 / 5,
        "tokens_before": 17 / 5,
        "tokens": 17 / 5,
        "unknown_before": 1 / 17,
        "unknown": 3 / 17,
    }
    cut = measure_trim(source, tmp_path / "target", texts, max_length=3)
    assert cut["tokens"] == 3
    assert measure_trim(source, tmp_path / "target", [], 16)["unknown"] == 0
    pairs = measure_trim(source, tmp_path / "target", [("a", "ab")], 16)
    assert (pairs["tokens_before"], pairs["tokens"], pairs["changed_rows"]) == (5, 6, 1)


def save_other(folder: Path) -> None:
    tokenizer = Tokenizer(models.BPE({"a": 0, "[UNK]": 1}, [], unk_token="[UNK]"))
    tokenizer.save(str(folder / "tokenizer.json"))


def remove(name: str) -> Any:
    return lambda folder: (folder / name).unlink()


def rename_embeddings(folder: Path) -> None:
    save_file({"roberta.embeddings": torch.zeros(2, 2)}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (save_other, "a BPE tokenizer; only the vocabulary of BERT's"),
        (remove("tokenizer.json"), r"tokenizer\.json: not found"),
        (remove("model.safetensors"), r"no model\.safetensors"),
        (rename_embeddings, "not a BERT classifier"),
    ],
)
def test_other_folders_are_rejected(tmp_path: Path, change: Any, message: str) -> None:
    source = save_pieces(tmp_path / "source", PIECES)
    change(source)
    with pytest.raises(VocabularyError, match=message):
        trim_student(source, tmp_path / "target", SPECIAL)


def test_pieces_that_cannot_be_kept_or_left_out(tmp_path: Path) -> None:
    source = save_pieces(tmp_path / "source", PIECES)
    with pytest.raises(VocabularyError, match="the piece 'zebra' is not in the vocabulary"):
        trim_student(source, tmp_path / "target", [*SPECIAL, "zebra"])
    with pytest.raises(VocabularyError, match=r"\[MASK\] must be kept"):
        trim_student(source, tmp_path / "target", [*SPECIAL[:-1], "a"])
    assert not (tmp_path / "target").exists()
