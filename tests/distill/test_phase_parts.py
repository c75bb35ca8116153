"""A batch in parts, rows with weights, moving averages, the best epoch, schedules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from factory.distill import phase as phase_module
from factory.distill.losses import attention_loss, hidden_loss, mean_over_rows
from factory.distill.phase import LossPoint, Phase, train_phase
from factory.errors import TrainingError
from factory.models.encoding import Batch, EncodedRows

PHASE = Phase("practice", 2.0, 5, 1e-2, 0.1, 0.0, seed=5)
ROWS = 23  # 4 batches of 5 and one of 3


def some_rows() -> EncodedRows:
    random = np.random.default_rng(0)
    ids = [random.integers(1, 30, random.integers(2, 9)).astype(np.int32) for _ in range(ROWS)]
    return EncodedRows(ids, [np.zeros_like(row) for row in ids], pad_id=0)


def fresh_modules() -> nn.ModuleDict:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.ModuleDict({"student": nn.Sequential(nn.Embedding(30, 8), nn.Linear(8, 8))})


def three_losses(modules: nn.ModuleDict) -> Any:
    """One loss per token, one per pair of tokens and one per row, against fixed targets."""

    def losses(batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        states = modules["student"](batch.input_ids)
        wanted = torch.sin(batch.input_ids.float()).unsqueeze(-1).expand_as(states)
        scores = (states @ states.transpose(1, 2)).unsqueeze(1)
        mask, share = batch.attention_mask, batch.share
        terms = {
            "hidden": hidden_loss(states, wanted, mask, share),
            "attention": attention_loss(scores, torch.zeros_like(scores), mask, share),
            "row": mean_over_rows((states[:, 0].sum(-1) - batch.rows % 3).square(), share),
        }
        return torch.stack(list(terms.values())).sum(), terms

    return losses


def train(
    tmp_path: Path, name: str, phase: Phase = PHASE, **options: Any
) -> tuple[dict[str, Tensor], list[LossPoint]]:
    modules = fresh_modules()
    losses = three_losses(modules)
    points = train_phase(phase, modules, some_rows(), losses, tmp_path / name, "cpu", **options)
    return modules.state_dict(), points


def test_a_batch_that_does_not_fit_is_computed_in_parts_with_the_same_sum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, points = train(tmp_path, "whole")
    modules = fresh_modules()
    inner = three_losses(modules)
    seen: list[int] = []

    def small_memory(batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        seen.append(len(batch.rows))
        if len(batch.rows) > 2 and len(seen) > 2:  # from the third step on
            inner(batch)[0].backward()  # what was computed before memory ran out must not count
            raise torch.OutOfMemoryError("no more")
        return inner(batch)

    again = train_phase(PHASE, modules, some_rows(), small_memory, tmp_path / "parts", "cpu")
    assert seen[:6] == [5, 5, 5, 3, 1, 1] or max(seen[4:]) <= 3
    assert max(seen[-4:]) <= 2
    assert "computed in 4 parts" in capsys.readouterr().err
    for name, value in modules.state_dict().items():
        torch.testing.assert_close(value, whole[name], rtol=1e-4, atol=1e-6)
    assert [p.value for p in again] == pytest.approx([p.value for p in points], rel=1e-4)


def test_memory_that_does_not_hold_one_row_is_an_error(tmp_path: Path) -> None:
    modules = fresh_modules()

    def no_memory(_batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        raise torch.OutOfMemoryError("no more")

    with pytest.raises(TrainingError, match="not even one row fits"):
        train_phase(PHASE, modules, some_rows(), no_memory, tmp_path / "state", "cpu")


def test_a_rows_weight_multiplies_its_losses(tmp_path: Path) -> None:
    """The first step's losses against plain loops over rows."""
    weights = np.linspace(0.1, 2.0, ROWS).astype(np.float32)
    seen: list[Batch] = []
    modules = fresh_modules()
    inner = three_losses(modules)

    def watching(batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        seen.append(batch)
        return inner(batch)

    before = {name: value.clone() for name, value in modules.state_dict().items()}
    points = train_phase(
        PHASE, modules, some_rows(), watching, tmp_path / "s", "cpu", row_weights=weights
    )
    student = fresh_modules()
    student.load_state_dict(before)
    rows = some_rows()
    sums, counts = dict.fromkeys(("hidden", "attention", "row"), 0.0), [0.0, 0.0, 0.0]
    for row in seen[0].rows.tolist():
        weight = float(weights[row])
        ids = rows.input_ids[row].astype(np.int64)
        states = student["student"](torch.from_numpy(ids)).detach().numpy().astype(np.float64)
        for token, state in zip(ids, states, strict=True):
            sums["hidden"] += weight * float(((state - np.sin(token)) ** 2).sum()) / 8
            for other in states:
                sums["attention"] += weight * float(state @ other) ** 2
        sums["row"] += weight * (float(states[0].sum()) - row % 3) ** 2
        counts[0] += weight * len(ids)
        counts[1] += weight * len(ids) ** 2
        counts[2] += weight
    first = {p.term: p.value for p in points if p.step == 0}
    for (term, total), count in zip(sums.items(), counts, strict=True):
        assert first[term] == pytest.approx(total / count, rel=1e-4), term


def test_the_best_epoch_stays_and_survives_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phase = Phase("practice", 4.0, 5, 1e-2, 0.1, 0.0, seed=5)

    def scores() -> Any:
        values = iter(
            (0.1, 0.3, 0.9, 0.4, 0.9)
        )  # the second epoch is the best, the fourth equals it
        return lambda: next(values)

    best, _ = train(tmp_path, "best", phase, score=scores())
    two, _ = train(tmp_path, "two", phase)  # the last weights differ
    assert not all(torch.equal(best[name], two[name]) for name in best)

    monkeypatch.setattr(phase_module, "CHECKPOINT_SECONDS", -1.0)
    values = [0.1, 0.3, 0.9, 0.4, 0.9]
    calls: list[float] = []

    def failing() -> float:
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(values[len(calls)])
        return calls[-1]

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, "cut", phase, score=failing)
    rest = iter((0.4, 0.9))
    resumed, _ = train(tmp_path, "cut", phase, score=lambda: next(rest))
    assert all(torch.equal(best[name], resumed[name]) for name in best)


def test_the_modules_are_in_eval_mode_while_scored(tmp_path: Path) -> None:
    modules = fresh_modules()
    modes: list[bool] = []

    def score() -> float:
        modes.append(modules.training)
        return 0.0

    losses = three_losses(modules)
    train_phase(PHASE, modules, some_rows(), losses, tmp_path / "s", "cpu", score=score)
    assert modes == [False, False, False]


def test_every_value_stands_beside_its_start(tmp_path: Path) -> None:
    _, points = train(tmp_path, "state")
    start = {p.term: p.value for p in points if p.step == 0}
    assert set(start) == {"total", "hidden", "attention", "row"}
    for point in points:
        assert point.of_start == pytest.approx(point.value / start[point.term])
    assert {p.of_start for p in points if p.step == 0} == {1.0}


def test_a_phase_that_only_harms_leaves_the_weights_it_was_given(tmp_path: Path) -> None:
    falling = iter((0.9, 0.5, 0.4))
    weights, _ = train(tmp_path, "harm", score=lambda: next(falling))
    assert all(torch.equal(weights[k], v) for k, v in fresh_modules().state_dict().items())
