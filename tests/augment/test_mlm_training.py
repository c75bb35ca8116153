"""Training a masked language model: what it learns, how it starts, and going on after a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from process_groups import forking_server
from safetensors.numpy import load_file
from tiny_mlms import save_mlm, source_of, tiny_mlm
from tiny_models import MAX_LENGTH, SPECIAL, VOCABULARY, save_tiny, tiny_bert, tiny_tokenizer
from transformers import DataCollatorForLanguageModeling, Trainer

from factory.augment.mlm_model import load_mlm
from factory.augment.mlm_training import (
    IGNORED,
    masked_logits,
    start_head,
    token_counts,
    train_mlm,
)
from factory.errors import DataError
from factory.models.encoding import encode_inputs
from factory.recipe.recipe import MlmSettings
from factory.runtime import distributed as processes

# transformers sorts checkpoints by time, which two of a tiny model's may share; it says so and
# goes by their numbers instead
pytestmark = pytest.mark.filterwarnings("ignore:mtime may not be reliable:UserWarning")

# Each word decides the next one's kind, so that what stands around a masked word tells it.
PAIRS = (("broken", "lamp"), ("great", "shoe"), ("late", "parcel"), ("happy", "shop"))


def learnable(rows: int = 160) -> list[str]:
    """Sentences of two pairs of words that always stand together, all different."""
    random = np.random.default_rng(7)
    texts: dict[str, None] = {}
    while len(texts) < rows:
        first, second = random.integers(len(PAIRS), size=2)
        filler = random.choice(list("bcdefgh"), size=2)
        pairs = [" ".join(PAIRS[first]), str(filler[0]), " ".join(PAIRS[second]), str(filler[1])]
        texts[" ".join(pairs)] = None
    return list(texts)


def settings(**changes: Any) -> MlmSettings:
    fields: dict[str, Any] = {"epochs": 2.0, "batch_size": 16, "learning_rate": 3e-3, "seed": 4}
    return MlmSettings(**{**fields, **changes})


def trained(directory: Path, base: Path, **changes: Any) -> dict[str, Any]:
    directory.mkdir(exist_ok=True)
    return train_mlm(
        directory, source_of(base), settings(**changes), learnable(), MAX_LENGTH, "cpu"
    )


def weights(directory: Path) -> dict[str, Any]:
    return load_file(directory / "model" / "model.safetensors")


def test_it_learns_words_from_what_stands_around_them(tmp_path: Path) -> None:
    base = save_tiny(tiny_bert(), tmp_path / "base")
    facts = trained(tmp_path / "made", base, epochs=16.0)
    scores = facts["held_out"]
    assert scores["after"]["loss"] < scores["unigram"]["loss"] - 0.5
    assert scores["after"]["accuracy"] > scores["unigram"]["accuracy"] + 0.2
    assert (facts["texts"], scores["texts"], facts["new_head"]) == (152, 8, True)
    assert facts["source"] == "sha256:test"
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["model"]
    json.dumps(facts)

    opened = load_mlm(source_of(tmp_path / "made" / "model"), "mlm", "cpu")
    rows = opened.tokenizer("happy [MASK] b late [MASK] c", return_tensors="pt")
    with torch.no_grad():
        best = opened.model(**rows).logits[0].argmax(dim=-1)
    found = [VOCABULARY[best[place]] for place in (2, 5)]
    assert found == ["shop", "parcel"]
    assert torch.equal(
        opened.model.cls.predictions.decoder.weight, opened.model.get_input_embeddings().weight
    )


def test_a_head_that_is_there_is_trained_on(tmp_path: Path) -> None:
    base = save_mlm(tmp_path / "base")
    facts = trained(tmp_path / "made", base, learning_rate=1e-9, epochs=1.0)
    assert facts["new_head"] is False
    name = "cls.predictions.transform.dense.weight"
    before = load_file(base / "model.safetensors")[name]
    np.testing.assert_allclose(weights(tmp_path / "made")[name], before, atol=1e-6)
    assert facts["held_out"]["before"] == pytest.approx(facts["held_out"]["after"], abs=1e-4)


def test_the_same_settings_give_the_same_bytes(tmp_path: Path) -> None:
    base = save_tiny(tiny_bert(hidden_dropout_prob=0.1), tmp_path / "base")
    facts = []
    for name, noise in (("first", 1), ("second", 2)):
        torch.manual_seed(noise)  # whatever ran before in the process
        facts.append(trained(tmp_path / name, base))
    first, second = (
        (tmp_path / name / "model" / "model.safetensors").read_bytes()
        for name in ("first", "second")
    )
    assert (first, facts[0]) == (second, facts[1])
    trained(tmp_path / "third", base, seed=5)
    assert (tmp_path / "third" / "model" / "model.safetensors").read_bytes() != first


def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_tiny(tiny_bert(hidden_dropout_prob=0.1), tmp_path / "base")
    trained(tmp_path / "whole", base, epochs=3.0)
    original, steps = Trainer.training_step, []

    def count(*arguments: Any, **keywords: Any) -> Any:
        steps.append(1)
        if len(steps) == 15:  # ten steps an epoch
            raise KeyboardInterrupt
        return original(*arguments, **keywords)

    monkeypatch.setattr(Trainer, "training_step", count)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", base, epochs=3.0)
    saved = [path.name for path in (tmp_path / "cut" / "checkpoints").iterdir()]
    assert saved == ["checkpoint-10"]
    torch.manual_seed(31)
    trained(tmp_path / "cut", base, epochs=3.0)
    assert len(steps) == 15 + 20
    resumed, whole = weights(tmp_path / "cut"), weights(tmp_path / "whole")
    for name in whole:
        np.testing.assert_allclose(resumed[name], whole[name], atol=1e-6, err_msg=name)


def test_a_new_head_gives_back_the_hidden_states() -> None:
    """Its guesses: normalized hidden states times word embeddings, plus log frequencies."""
    model = tiny_mlm()
    counts = np.arange(len(VOCABULARY), dtype=np.int64)
    start_head(model, counts)
    rows = tiny_tokenizer()("the parcel is late", return_tensors="pt")
    with torch.no_grad():
        hidden = model.bert(**rows).last_hidden_state.double().numpy()[0]
        logits = model(**rows).logits.numpy()[0]
    embeddings = model.get_input_embeddings().weight.detach().double().numpy()
    centred = hidden - hidden.mean(axis=1, keepdims=True)
    normalized = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True))
    frequencies = np.log((counts + 1) / (counts + 1).sum())
    np.testing.assert_allclose(logits, normalized @ embeddings.T + frequencies, atol=1e-3)


def test_tokens_are_counted_without_special_ones() -> None:
    tokenizer = tiny_tokenizer()
    rows = encode_inputs(tokenizer, ["the the lamp", "the ж"], MAX_LENGTH)
    counts = token_counts(rows, tokenizer.all_special_ids, 90)
    found = {VOCABULARY[number]: counts[number] for number in np.flatnonzero(counts)}
    assert (found, len(counts)) == ({"the": 3, "lamp": 1}, 90)


def test_guesses_at_masked_places_are_those_of_the_whole_head() -> None:
    model = tiny_mlm()
    rows = tiny_tokenizer()(["the [MASK] is late", "a lamp"], padding=True, return_tensors="pt")
    labels = torch.full_like(rows["input_ids"], IGNORED)
    labels[0, 2] = labels[1, 1] = labels[1, 2] = 7
    with torch.no_grad():
        whole = model(**rows).logits
        chosen = masked_logits(model, model.cls, dict(rows), labels)
        torch.testing.assert_close(chosen, whole[[0, 1, 1], [2, 1, 2]])
        assert model(**rows).logits.shape == whole.shape  # nothing of it stays


def test_a_batch_without_a_masked_token_changes_nothing(tmp_path: Path) -> None:
    """One text of one word in the last batch: seldom masked, and its mean would be 0 / 0."""
    base = save_tiny(tiny_bert(), tmp_path / "base")
    few = settings(batch_size=1, mask_probability=0.01, epochs=1.0)
    facts = train_mlm(tmp_path, source_of(base), few, list("bcdefghi"), MAX_LENGTH, "cpu")
    assert facts["held_out"]["masked"] == 0
    assert facts["held_out"]["after"] == {"loss": None, "accuracy": None}
    assert all(np.isfinite(values).all() for values in weights(tmp_path).values())


def test_longer_texts_than_the_model_reads_are_cut(tmp_path: Path) -> None:
    base = save_tiny(tiny_bert(max_position_embeddings=8), tmp_path / "base")
    facts = trained(tmp_path / "made", base, epochs=1.0)
    assert facts["tokens"] == 152 * 8


def test_too_few_texts(tmp_path: Path) -> None:
    base = save_tiny(tiny_bert(), tmp_path / "base")
    with pytest.raises(DataError, match="two different texts"):
        train_mlm(tmp_path, source_of(base), settings(), ["a", "a", " "], MAX_LENGTH, "cpu")


# several processes


def mask_by_token(_: Any, inputs: Any, **__: Any) -> Any:
    """The library draws what it masks; for comparing, every token with an even number."""
    chosen = (inputs % 2 == 0) & (inputs >= len(SPECIAL))
    return inputs.masked_fill(chosen, SPECIAL.index("[MASK]")), inputs.where(
        chosen, torch.tensor(IGNORED)
    )


def share_training(directory: str, base: str) -> None:
    """Two epochs whose last batch has one row, in as many processes as there are."""
    DataCollatorForLanguageModeling.torch_mask_tokens = mask_by_token
    with processes.process_group("cpu"):
        texts = learnable(35)
        source = source_of(Path(base))
        facts = train_mlm(Path(directory), source, settings(), texts, MAX_LENGTH, "cpu")
        assert bool(facts) is processes.current().first


def test_processes_share_the_rows_of_each_batch(tmp_path: Path) -> None:
    base = save_tiny(tiny_bert(), tmp_path / "base")
    with forking_server(tmp_path) as server:
        for count in (1, 2):
            directory = tmp_path / f"in {count}"
            directory.mkdir()
            server.run(count, "test_mlm_training:share_training", directory, base)
    one, two = weights(tmp_path / "in 1"), weights(tmp_path / "in 2")
    before = load_file(base / "model.safetensors")
    name = "bert.encoder.layer.0.attention.self.query.weight"
    assert np.abs(one[name] - before[name]).max() > 5e-3
    for name in one:
        # softmax cancels a key's bias, so its gradient is rounding noise, which Adam scales up
        atol = 1e-3 if name.endswith("key.bias") else 1e-5
        np.testing.assert_allclose(two[name], one[name], atol=atol, err_msg=name)
