"""The terms of the intermediate phase's loss, from recordings to their weighted sum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import (
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

from factory.classifier import TorchClassifier
from factory.distill.capture import recording
from factory.distill.intermediate import (
    intermediate_losses,
    weighted_sum,
)
from factory.encoding import Batch, collate, encode_inputs
from factory.errors import RecipeError
from factory.recipe import (
    IntermediateSettings,
)


def recorded_terms(
    teacher: TorchClassifier, student: Any, projections: nn.ModuleList, batch: Batch
) -> dict[str, Tensor]:
    with (
        torch.no_grad(),
        recording(student.bert, (1, 2)) as ours,
        recording(teacher.model.bert, (2, 3)) as theirs,
    ):
        for model in (student, teacher.model):
            model.bert(batch.input_ids, batch.attention_mask, batch.token_type_ids)
        return intermediate_losses(ours, theirs, projections, (2, 3), batch.attention_mask)


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
    torch.manual_seed(0)
    projections = nn.ModuleList(nn.Linear(16, 24) for _ in range(3))
    texts = SMALL.train.texts[:6]
    rows = encode_inputs(teacher.tokenizer, texts, MAX_LENGTH)
    assert len(set(rows.lengths.tolist())) > 2  # the batch below is padded
    terms = recorded_terms(teacher, student, projections, collate(rows, np.arange(6), "cpu"))

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


def test_the_maximum_length_does_not_change_the_terms(teacher: TorchClassifier) -> None:
    student = tiny_bert(seed=5, num_hidden_layers=2, hidden_size=16, intermediate_size=32)
    projections = nn.ModuleList(nn.Linear(16, 24) for _ in range(3))
    rows = encode_inputs(teacher.tokenizer, SMALL.train.texts[:6], MAX_LENGTH)
    narrow = collate(rows, np.arange(6), "cpu")
    extra = 30 - narrow.input_ids.shape[1]
    wide = Batch(
        *(
            nn.functional.pad(values, (0, extra))
            for values in (narrow.input_ids, narrow.token_type_ids, narrow.attention_mask)
        ),
        rows=narrow.rows,
    )
    first = recorded_terms(teacher, student, projections, narrow)
    second = recorded_terms(teacher, student, projections, wide)
    for name, term in first.items():
        assert second[name].item() == pytest.approx(term.item(), rel=1e-4), name


def test_the_weighted_sum_by_hand() -> None:
    terms = {
        "embedding": torch.tensor(1.0),
        "hidden.1": torch.tensor(10.0),
        "attention.1": torch.tensor(100.0),
        "hidden.2": torch.tensor(1000.0),
    }
    settings = IntermediateSettings(embedding_weight=2.0, hidden_weight=3.0, attention_weight=0.5)
    assert weighted_sum(terms, settings, heads=4).item() == 2 + 30 + 50 + 3000


def test_other_head_counts_need_the_attention_loss_off(
    tmp_path: Path, teacher: TorchClassifier
) -> None:
    student = STUDENT.model_copy(update={"heads": 2})
    with pytest.raises(RecipeError, match=r"student\.heads = 4") as caught:
        run(tmp_path / "refused", teacher, student=student)
    assert "distill.intermediate.attention_weight = 0" in str(caught.value)
    without = IntermediateSettings(epochs=1, attention_weight=0.0)
    run(
        tmp_path / "taken",
        teacher,
        student=student,
        settings=QUICK.model_copy(update={"intermediate": without}),
    )
    assert open_tiny(tmp_path / "taken" / "model").model.config.num_attention_heads == 2
    assert "intermediate.hidden.2" in losses_of(tmp_path / "taken")
    assert "intermediate.attention.2" not in losses_of(tmp_path / "taken")
