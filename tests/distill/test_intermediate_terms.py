"""The terms of the intermediate phase's loss, and their weighted sum."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from helpers.tiny_models import (
    MAX_LENGTH,
    open_tiny,
    tiny_bert,
    tiny_classifier,
)
from tiny_runs import (
    QUICK,
    SMALL,
    STUDENT,
    losses_of,
    run,
)
from torch import Tensor, nn

from factory.distill.losses import weighted_sum
from factory.distill.student import StudentStart
from factory.distill.tinybert import IntermediateLoss
from factory.errors import RecipeError
from factory.models.classifier import TorchClassifier
from factory.models.encoding import Batch, collate, encode_inputs
from factory.recipe.training import IntermediateSettings


def terms_of(
    teacher: TorchClassifier, student: Any, batch: Batch, **settings: Any
) -> tuple[dict[str, Tensor], nn.ModuleList]:
    """The terms of a batch without their sum, and the projections they were computed with."""
    torch.manual_seed(0)
    projections = nn.ModuleList(nn.Linear(16, 24) for _ in range(3))
    start = StudentStart(student, projections)
    loss = IntermediateLoss(start, teacher.model, (2, 3), IntermediateSettings(**settings))
    with torch.no_grad():
        terms = loss(batch)
    terms.pop("total")
    return terms, projections


def states_and_scores(model: Any, text: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Hidden states, and attention scores worked out from the weights, of one text alone."""
    encoded = tiny_classifier(model).tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        states = [
            s[0].numpy() for s in model.bert(**encoded, output_hidden_states=True).hidden_states
        ]
    scores = []
    for state, block in zip(states, model.bert.encoder.layer, strict=False):
        query, key = (
            state @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
            for linear in (block.attention.self.query, block.attention.self.key)
        )
        width = query.shape[1] // 4
        heads = [slice(head * width, (head + 1) * width) for head in range(4)]
        scores.append(np.stack([query[:, h] @ key[:, h].T / width**0.5 for h in heads]))
    return states, scores


def test_every_term_against_each_text_alone(teacher: TorchClassifier) -> None:
    student = tiny_bert(seed=5, num_hidden_layers=2, hidden_size=16, intermediate_size=32)
    texts = SMALL.train.texts[:6]
    rows = encode_inputs(teacher.tokenizer, texts, MAX_LENGTH)
    assert len(set(rows.lengths.tolist())) > 2  # the batch below is padded
    terms, projections = terms_of(teacher, student, collate(rows, np.arange(6), "cpu"))

    squares: dict[str, list[float]] = {name: [] for name in terms}
    for text in texts:
        ours, our_scores = states_and_scores(student, text)
        theirs, their_scores = states_and_scores(teacher.model, text)
        for position, layer in enumerate((0, 2, 3)):
            linear = projections[position]
            projected = ours[position] @ linear.weight.detach().numpy().T
            difference = projected + linear.bias.detach().numpy() - theirs[layer]
            name = f"hidden.{position}" if position else "embedding"
            squares[name] += (difference**2).ravel().tolist()
        for position, layer in ((1, 2), (2, 3)):
            difference = our_scores[position - 1] - their_scores[layer - 1]
            squares[f"attention.{position}"] += (difference**2).ravel().tolist()
    assert list(terms) == ["embedding", "hidden.1", "attention.1", "hidden.2", "attention.2"]
    for name, term in terms.items():
        assert term.item() == pytest.approx(np.mean(squares[name]), rel=1e-3), name


def test_the_weighted_sum_by_hand() -> None:
    terms = {
        "embedding": torch.tensor(1.0),
        "hidden.1": torch.tensor(10.0),
        "attention.1": torch.tensor(100.0),
        "hidden.2": torch.tensor(1000.0),
    }
    settings = IntermediateSettings(embedding_weight=2.0, hidden_weight=3.0, attention_weight=0.5)
    assert weighted_sum(terms, settings, heads=4).item() == 2 + 30 + 50 + 3000


@pytest.mark.parametrize("attention", ["auto", "relations"])
def test_other_head_counts_are_compared_through_relations(
    tmp_path: Path,
    teacher: TorchClassifier,
    attention: Literal["auto", "relations"],
    capsys: pytest.CaptureFixture[str],
) -> None:
    student = STUDENT.model_copy(update={"heads": 2})
    one_epoch = IntermediateSettings(epochs=1, attention=attention)
    settings = QUICK.model_copy(update={"intermediate": one_epoch})
    facts = run(tmp_path, teacher, student=student, settings=settings)
    assert open_tiny(tmp_path / "model").model.config.num_attention_heads == 2
    line = "the teacher has 4 heads, the student 2: relations instead of scores (2 relation heads)"
    assert facts["attention"] == line
    assert line in capsys.readouterr().err.splitlines()
    assert min(losses_of(tmp_path)["intermediate.attention.2"]) > 0


def test_scores_of_other_head_counts_are_refused_before_anything_is_computed(
    tmp_path: Path, teacher: TorchClassifier
) -> None:
    student = STUDENT.model_copy(update={"heads": 2})
    scores = IntermediateSettings(epochs=1, attention="scores")
    settings = QUICK.model_copy(update={"intermediate": scores})
    with pytest.raises(RecipeError, match=r"distill\.intermediate\.attention") as caught:
        run(tmp_path, teacher, student=student, settings=settings)
    assert 'set it to "auto" or "relations", or student.heads = 4' in str(caught.value)
    assert not list(tmp_path.iterdir())
    unused = IntermediateSettings(epochs=0, attention="scores")
    run(
        tmp_path,
        teacher,
        student=student,
        settings=QUICK.model_copy(update={"intermediate": unused}),
    )


def test_relation_terms_against_each_text_alone(teacher: TorchClassifier) -> None:
    """Queries, keys and values of the mapped layers, from the weights; numpy does the rest."""
    student = tiny_bert(
        seed=5, num_hidden_layers=2, hidden_size=16, num_attention_heads=8, intermediate_size=32
    )
    texts = SMALL.train.texts[:5]
    rows = encode_inputs(teacher.tokenizer, texts, MAX_LENGTH)
    batch = collate(rows, np.arange(5), "cpu")
    terms, _ = terms_of(teacher, student, batch, relation_heads=4)

    def relations(model: Any, layer: int, text: str) -> list[np.ndarray]:
        """Q-Q, K-K and V-V relations: each (4, tokens, tokens)."""
        encoded = tiny_classifier(model).tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            states = model.bert(**encoded, output_hidden_states=True).hidden_states
        own = model.bert.encoder.layer[layer - 1].attention.self
        result = []
        for linear in (own.query, own.key, own.value):
            vectors = linear(states[layer - 1])[0].detach().double().numpy()
            width = vectors.shape[1] // 4
            heads = [vectors[:, h * width : (h + 1) * width] for h in range(4)]
            exponentials = np.exp(np.stack([head @ head.T / width**0.5 for head in heads]))
            result.append(exponentials / exponentials.sum(axis=2, keepdims=True))
        return result

    for position, layer in ((1, 2), (2, 3)):
        of_tokens = []
        for text in texts:
            pairs = zip(
                relations(student, position, text),
                relations(teacher.model, layer, text),
                strict=True,
            )
            divergences = [(t * np.log(t / s)).sum(axis=2).mean(axis=0) for s, t in pairs]
            of_tokens += sum(divergences).tolist()
        expected = np.mean(of_tokens)
        assert terms[f"attention.{position}"].item() == pytest.approx(expected, rel=1e-3)
        assert expected > 0.01
