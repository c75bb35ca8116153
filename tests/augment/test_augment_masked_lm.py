"""Guesses of hidden words, in batches that fit into memory, and checks of the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from helpers.tiny_models import MAX_LENGTH, VOCABULARY, save_tiny, tiny_tokenizer
from safetensors.torch import load_file, save_file
from tiny_masked import fixed_mlm, headed_bert, save_mlm, source_of_rows, split_of, tiny_mlm
from transformers import ByT5Tokenizer, DistilBertConfig, DistilBertForMaskedLM

from factory.augment import masked_lm
from factory.augment.masked_lm import HiddenWords, MaskedLanguageModel, WordGuesser, load_masked_lm
from factory.errors import FactoryError, RecipeError
from factory.models.source import ModelSource

TEXTS = ("the shop is late", "Parcels, never!", "my lamp was broken and the shoe is late", "lamp")


def hidden_words(guesser: WordGuesser) -> list[HiddenWords]:
    """In each text one word hidden, and in the third two."""
    source = source_of_rows(split_of(*TEXTS))
    found = []
    for row, places in ((0, [1]), (1, [0]), (2, [1, 3]), (3, [0])):
        split = source.sides[0][row]
        found.append(guesser.hide(split.input_ids, [split.words[place] for place in places]))
    return found


def expected_ids(
    mlm: MaskedLanguageModel, text: str, places: list[int], allowed: list[int]
) -> list[list[int]]:
    """From the text with [MASK] in it, without a batch."""
    words = text.replace(",", " ,").replace("!", " !").split()
    for place in places:
        words[place] = "[MASK]"
    encoded = mlm.tokenizer(" ".join(words), return_tensors="pt")
    logits = mlm.model(**encoded).logits[0].detach()
    masked = (encoded["input_ids"][0] == mlm.tokenizer.mask_token_id).nonzero()[:, 0].tolist()
    return [
        sorted(allowed, key=lambda number: -float(logits[place, number]))[:5] for place in masked
    ]


def test_guesses_equal_those_of_one_text_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mlm = tiny_mlm()
    allowed = [number for number, text in enumerate(VOCABULARY) if text.isalpha()]
    expected = [
        ids
        for text, places in zip(TEXTS, [[1], [0], [1, 3], [0]], strict=True)
        for ids in expected_ids(mlm, text, places, allowed)
    ]
    assert len({tuple(ids) for ids in expected}) > 1  # the text matters
    for tokens in (1, 20, 2**12):
        monkeypatch.setattr(masked_lm, "CPU_BATCH_TOKENS", tokens)
        guesser = WordGuesser(mlm, MAX_LENGTH, "letters")
        assert guesser.guess(hidden_words(guesser), 5).tolist() == expected


@pytest.mark.parametrize(
    ("words", "expected"), [("letters", ["shop", "b"]), ("all", ["shop", "7", ",", "b"])]
)
def test_special_tokens_and_continuations_are_never_guessed(
    words: Literal["letters", "all"], expected: list[str]
) -> None:
    mlm = fixed_mlm("[PAD]", "##e", "[MASK]", "shop", "7", "[UNK]", ",", "##b", "b")
    guesser = WordGuesser(mlm, MAX_LENGTH, words)
    ids = guesser.guess(hidden_words(guesser)[:1], len(expected))[0]
    assert [guesser.vocabulary[number] for number in ids] == expected


def test_unused_tokens_and_ids_beyond_the_tokenizer_are_never_guessed() -> None:
    mlm = fixed_mlm("shop")
    mlm.tokenizer.add_tokens(["[unused1]", "thing"])
    mlm.model.resize_token_embeddings(len(VOCABULARY) + 5, mean_resizing=False)
    with torch.no_grad():
        mlm.model.cls.predictions.decoder.bias[len(VOCABULARY) :] = 5.0
    guesser = WordGuesser(mlm, MAX_LENGTH, "all")
    ids = guesser.guess(hidden_words(guesser)[:1], 2)[0]
    assert [guesser.vocabulary[number] for number in ids] == ["thing", "shop"]


def test_a_count_above_the_number_of_words_gives_all_words() -> None:
    guesser = WordGuesser(fixed_mlm(), MAX_LENGTH, "letters")
    ids = guesser.guess(hidden_words(guesser)[:1], 500)[0]
    assert sorted(ids.tolist()) == [n for n, text in enumerate(VOCABULARY) if text.isalpha()]
    assert guesser.guess([], 3).shape == (0, 3)


def test_a_word_of_several_tokens_is_hidden_by_one_mask() -> None:
    guesser = WordGuesser(tiny_mlm(), MAX_LENGTH, "letters")
    text = hidden_words(guesser)[1]
    # Parcels is parcel ##s
    tokens = [VOCABULARY[number] for number in text.input_ids]
    assert tokens == ["[CLS]", "[MASK]", ",", "never", "!", "[SEP]"]
    assert text.positions == [1]


def test_texts_are_truncated_at_the_models_limit() -> None:
    split = source_of_rows(split_of("shop " * 50), 60).sides[0][0]
    for limit, visible in ((10, 8), (60, 30)):  # the model itself reads 32
        guesser = WordGuesser(tiny_mlm(), limit, "letters")
        assert [guesser.within(word) for word in split.words] == [True] * visible + [False] * (
            50 - visible
        )
        hidden = guesser.hide(split.input_ids, [split.words[visible - 1]])
        assert len(hidden.input_ids) == visible + 2
        assert VOCABULARY[hidden.input_ids[-1]] == "[SEP]"
        assert hidden.positions == [visible]
        guesser.guess([hidden], 1)


def test_the_decoder_is_computed_at_hidden_positions_only() -> None:
    mlm = tiny_mlm()
    shapes: list[torch.Size] = []
    mlm.model.cls.register_forward_hook(lambda _, inputs, __: shapes.append(inputs[0].shape))
    guesser = WordGuesser(mlm, MAX_LENGTH, "letters")
    guesser.guess(hidden_words(guesser), 3)
    assert shapes == [torch.Size([5, 24])]


def out_of_memory_beyond(mlm: MaskedLanguageModel, tokens: int, sizes: list[int]) -> None:
    forward = mlm.model.bert.forward

    def limited(*, input_ids: torch.Tensor, **options: Any) -> Any:
        sizes.append(input_ids.numel())
        if input_ids.numel() > tokens:
            raise torch.OutOfMemoryError
        return forward(input_ids=input_ids, **options)

    mlm.model.bert.forward = limited


def test_out_of_memory_halves_the_batch() -> None:
    mlm = tiny_mlm()
    guesser = WordGuesser(mlm, MAX_LENGTH, "letters")
    texts = hidden_words(guesser) * 4
    expected = guesser.guess(texts, 5)
    sizes: list[int] = []
    out_of_memory_beyond(mlm, 50, sizes)
    np.testing.assert_array_equal(guesser.guess(texts, 5), expected)
    # 16 texts, the longest of 11 tokens; then half of them; then half of those
    assert sizes[0] == 16 * 11
    assert [size for size in sizes if size > 50] == sizes[:2]
    # the smaller batch is kept
    sizes.clear()
    guesser.guess(texts, 5)
    assert max(sizes) <= 50


def test_a_single_text_out_of_memory_is_an_error() -> None:
    mlm = tiny_mlm()
    out_of_memory_beyond(mlm, 8, [])
    guesser = WordGuesser(mlm, MAX_LENGTH, "letters")
    with pytest.raises(FactoryError, match=r"cannot process a single text.*lower data\.max_length"):
        guesser.guess(hidden_words(guesser), 5)


# opening a model


def source_of(folder: Path) -> ModelSource:
    return ModelSource(str(folder), None, "sha256:test")


def problem_of(folder: Path) -> str:
    with pytest.raises(RecipeError) as caught:
        load_masked_lm(source_of(folder), "cpu")
    assert caught.value.headline == "augment.mlm"
    assert len(caught.value.problems) == 1
    return caught.value.problems[0]


def rewrite(folder: Path, dropped: str) -> None:
    """Leave weights out of a saved model."""
    file = folder / "model.safetensors"
    kept = {name: w for name, w in load_file(file).items() if not name.startswith(dropped)}
    save_file(kept, file, metadata={"format": "pt"})


def test_a_model_with_its_head_computes_what_was_saved(tmp_path: Path) -> None:
    model = headed_bert(hidden_dropout_prob=0.5)
    opened = load_masked_lm(source_of(save_tiny(model, tmp_path)), "cpu")
    assert not opened.model.training
    assert opened.device == "cpu"
    rows = opened.tokenizer(["the parcel is [MASK]"], return_tensors="pt")
    assert int((rows["input_ids"] == opened.tokenizer.mask_token_id).sum()) == 1
    with torch.no_grad():
        assert torch.equal(opened.model(**rows).logits, model(**rows).logits)


def test_the_decoder_bias_may_be_missing(tmp_path: Path) -> None:
    """Older checkpoints hold the output bias once."""
    rewrite(save_mlm(tmp_path), "cls.predictions.decoder")
    load_masked_lm(source_of(tmp_path), "cpu")


@pytest.mark.parametrize(
    ("dropped", "parts"),
    [
        ("cls", ["no masked-language-model head", "bert-base-uncased", "remove augment.mlm"]),
        ("cls.predictions.transform.LayerNorm", ["(cls.predictions.transform.LayerNorm.bias, "]),
        ("bert.encoder.layer.1", ["not a complete BERT: bert.encoder.layer.1"]),
    ],
)
def test_missing_weights(tmp_path: Path, dropped: str, parts: list[str]) -> None:
    rewrite(save_mlm(tmp_path), dropped)
    problem = problem_of(tmp_path)
    assert all(part in problem for part in parts)


def test_another_architecture(tmp_path: Path) -> None:
    config = DistilBertConfig(vocab_size=80, dim=8, n_layers=1, n_heads=2, hidden_dim=8)
    assert "distilbert" in problem_of(save_tiny(DistilBertForMaskedLM(config), tmp_path))


def test_a_folder_without_weights_and_one_of_other_shapes(tmp_path: Path) -> None:
    folder = save_mlm(tmp_path / "shapes")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 32}))
    assert "cannot load" in problem_of(folder)
    (folder / "model.safetensors").unlink()
    assert "cannot load" in problem_of(folder)
    assert "cannot load" in problem_of(tmp_path / "nowhere")


def test_a_tokenizer_that_is_not_fast(tmp_path: Path) -> None:
    folder = save_mlm(tmp_path)
    (folder / "tokenizer.json").unlink()
    ByT5Tokenizer().save_pretrained(folder)
    assert "no fast tokenizer" in problem_of(folder)


@pytest.mark.parametrize("token", ["mask", "pad"])
def test_a_tokenizer_without_a_required_token(tmp_path: Path, token: str) -> None:
    folder = save_mlm(tmp_path)
    tokenizer = tiny_tokenizer()
    setattr(tokenizer, f"{token}_token", None)
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    # the class of BERT's tokenizer brings these tokens along
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    file.write_text(json.dumps(settings))
    assert f"without a {token}" in problem_of(folder)


def test_a_tokenizer_of_another_model(tmp_path: Path) -> None:
    assert "belong to different models" in problem_of(save_mlm(tmp_path, vocab_size=20))
