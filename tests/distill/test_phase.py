"""A training phase: steps, schedule, log, exact resume, divergence."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from factory.distill import phase as phase_module
from factory.distill.phase import LossPoint, Phase, total_steps, train_phase
from factory.errors import TrainingError
from factory.models.encoding import Batch, EncodedRows

ROWS = 23  # batches of 4: five full ones and one of 3
PHASE = Phase("practice", 3.0, 4, 1e-2, 0.1, 0.01, seed=5)
STEPS = 18


class PowerCut(Exception):
    """What interrupts a run in these tests."""


def some_rows(count: int = ROWS) -> EncodedRows:
    random = np.random.default_rng(0)
    ids = [random.integers(1, 30, random.integers(2, 9)).astype(np.int32) for _ in range(count)]
    return EncodedRows(ids, [np.zeros_like(row) for row in ids], pad_id=0)


def fresh_modules() -> nn.ModuleDict:
    """A small network whose dropout makes every step depend on the random state."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        student = nn.Sequential(
            nn.Embedding(30, 8), nn.Dropout(0.3), nn.LayerNorm(8), nn.Linear(8, 2)
        )
    return nn.ModuleDict({"student": student})


class Practice:
    """A loss that records the batches it was given and can fail at a step."""

    def __init__(self, modules: nn.ModuleDict, cut_at: int | None = None) -> None:
        self.modules = modules
        self.cut_at = cut_at
        self.batches: list[list[int]] = []

    def __call__(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        if len(self.batches) == self.cut_at:
            raise PowerCut
        self.batches.append(batch.rows.tolist())
        outputs = self.modules["student"](batch.input_ids)
        mask = batch.attention_mask.unsqueeze(-1)
        target = (batch.rows % 3).float()[:, None]
        error = ((outputs * mask).sum(1) - target).square()
        return error.mean(), {"first": error[:, 0].mean(), "second": error[:, 1].mean()}


def train(
    file: Path, phase: Phase = PHASE, cut_at: int | None = None
) -> tuple[dict[str, Tensor], list[LossPoint], Practice]:
    """One run from fresh weights; resumes from `file` if it is there."""
    modules = fresh_modules()
    practice = Practice(modules, cut_at)
    points = train_phase(phase, modules, some_rows(), practice, file, "cpu")
    return modules.state_dict(), points, practice


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Whether every weight is equal to the last bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("epochs", "rows", "batch_size", "expected"),
    [
        (3.0, 23, 4, 18),
        (1.0, 24, 4, 6),
        (1.0, 3, 32, 1),  # fewer rows than a batch are still trained on
        (0.5, 23, 4, 3),
        (0.4, 23, 4, 3),  # 2.4 steps
        (0.0, 23, 4, 0),
        (1.1, 40, 4, 11),  # in floating point, 1.1 * 10 is a little more than 11
        (29 / 7, 28, 4, 29),  # and 29 / 7 * 7 a little more than 29
    ],
)
def test_steps(epochs: float, rows: int, batch_size: int, expected: int) -> None:
    assert total_steps(Phase("any", epochs, batch_size, 1e-3, 0.1, 0.0, 1), rows) == expected


@given(st.integers(1, 5000), st.integers(1, 64), st.integers(1, 20_000))
def test_steps_given_as_epochs_come_back(rows: int, batch_size: int, steps: int) -> None:
    per_epoch = math.ceil(rows / batch_size)
    phase = Phase("any", steps / per_epoch, batch_size, 1e-3, 0.1, 0.0, 1)
    assert total_steps(phase, rows) == steps


def test_every_epoch_sees_every_row_once_in_a_new_order(tmp_path: Path) -> None:
    _, _, practice = train(tmp_path / "state")
    assert len(practice.batches) == STEPS
    epochs = [practice.batches[start : start + 6] for start in (0, 6, 12)]
    for batches in epochs:
        assert sorted(itertools.chain(*batches)) == list(range(ROWS))
    assert epochs[0] != epochs[1] != epochs[2]


def test_part_of_an_epoch(tmp_path: Path) -> None:
    phase = Phase("part", 1.5, 4, 1e-2, 0.1, 0.01, seed=5)
    _, _, practice = train(tmp_path / "state", phase)
    _, _, longer = train(tmp_path / "longer")
    assert practice.batches == longer.batches[:9]


def test_training_is_deterministic_and_the_seed_counts(tmp_path: Path) -> None:
    torch.manual_seed(99)
    first, points, _ = train(tmp_path / "first")
    torch.manual_seed(100)
    second, points_again, _ = train(tmp_path / "second")
    assert same(first, second)
    assert points == points_again
    other, _, _ = train(tmp_path / "third", Phase("practice", 3.0, 4, 1e-2, 0.1, 0.01, seed=6))
    assert not same(first, other)


def test_the_loss_falls_and_every_term_is_logged(tmp_path: Path) -> None:
    phase = Phase("practice", 20.0, 4, 3e-2, 0.1, 0.0, seed=5)
    _, points, _ = train(tmp_path / "state", phase)
    values = {term: [p.value for p in points if p.term == term] for term in ("total", "first")}
    assert np.mean(values["total"][-6:]) < 0.5 * np.mean(values["total"][:6])
    assert {point.term for point in points} == {"total", "first", "second"}
    assert {point.phase for point in points} == {"practice"}
    assert max(point.step for point in points) == total_steps(phase, ROWS) == 120


def test_a_point_is_the_mean_since_the_point_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, every, _ = train(tmp_path / "every")
    single = {p.step: p.value for p in every if p.term == "second"}
    assert sorted(single) == list(range(STEPS + 1))
    assert single[0] == single[1]  # the first batch, before any step
    monkeypatch.setattr(phase_module, "LOG_POINTS", 4)  # every 18 // 4 steps, and at the end
    _, points, _ = train(tmp_path / "some")
    means = {p.step: p.value for p in points if p.term == "second"}
    assert sorted(means) == [0, 4, 8, 12, 16, 18]
    for step, start in zip((4, 8, 12, 16, 18), (1, 5, 9, 13, 17), strict=True):
        expected = np.mean([single[earlier] for earlier in range(start, step + 1)])
        assert means[step] == pytest.approx(expected, rel=1e-5)


@settings(max_examples=12, deadline=None)
@given(cut_at=st.integers(0, STEPS - 1), log_points=st.sampled_from([1, 4, 7, 100]))
def test_an_interrupted_run_ends_with_the_same_weights_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, cut_at: int, log_points: int
) -> None:
    directory = tmp_path_factory.mktemp("resume")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phase_module, "LOG_POINTS", log_points)
        whole, whole_points, uncut = train(directory / "whole")
        patch.setattr(phase_module, "CHECKPOINT_SECONDS", -1.0)  # at every log point
        with pytest.raises(PowerCut):
            train(directory / "cut", cut_at=cut_at)
        torch.manual_seed(12345)
        weights, points, resumed = train(directory / "cut")
    assert same(weights, whole)
    assert points == whole_points
    log_every = max(1, STEPS // log_points)
    saved = cut_at // log_every * log_every
    assert resumed.batches == uncut.batches[saved:]


def test_a_run_cut_twice_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _, _ = train(tmp_path / "whole")
    monkeypatch.setattr(phase_module, "CHECKPOINT_SECONDS", -1.0)
    for cut_at in (7, 4):
        with pytest.raises(PowerCut):
            train(tmp_path / "cut", cut_at=cut_at)
    weights, _, resumed = train(tmp_path / "cut")
    assert len(resumed.batches) == STEPS - 7 - 4
    assert same(weights, whole)


def test_a_half_written_checkpoint_is_never_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _, _ = train(tmp_path / "whole")
    monkeypatch.setattr(phase_module, "CHECKPOINT_SECONDS", -1.0)
    with pytest.raises(PowerCut):
        train(tmp_path / "cut", cut_at=5)
    before = (tmp_path / "cut").read_bytes()

    def failing_save(_content: object, file: Path) -> None:
        file.write_bytes(b"half a checkp")
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", failing_save)
        with pytest.raises(PowerCut):
            train(tmp_path / "cut")
    assert (tmp_path / "cut").read_bytes() == before
    weights, _, _ = train(tmp_path / "cut")
    assert same(weights, whole)


def test_no_checkpoint_is_written_before_its_time(tmp_path: Path) -> None:
    with pytest.raises(PowerCut):
        train(tmp_path / "state", cut_at=17)
    assert not (tmp_path / "state").exists()


def test_a_finished_phase_is_not_trained_again(tmp_path: Path) -> None:
    weights, points, _ = train(tmp_path / "state")
    again, points_again, practice = train(tmp_path / "state", cut_at=0)
    assert practice.batches == []
    assert same(again, weights)
    assert points_again == points


def test_no_epochs_change_nothing(tmp_path: Path) -> None:
    phase = Phase("none", 0.0, 4, 1e-2, 0.1, 0.01, seed=5)
    weights, points, _ = train(tmp_path / "state", phase, cut_at=0)
    assert same(weights, fresh_modules().state_dict())
    assert points == []


def test_fewer_rows_than_a_batch_are_trained_on(tmp_path: Path) -> None:
    modules = fresh_modules()
    before = {name: value.clone() for name, value in modules.state_dict().items()}
    practice = Practice(modules)
    phase = Phase("small", 2.0, 32, 1e-2, 0.1, 0.01, seed=5)
    train_phase(phase, modules, some_rows(3), practice, tmp_path / "state", "cpu")
    assert [sorted(batch) for batch in practice.batches] == [[0, 1, 2]] * 2
    assert not same(before, modules.state_dict())


def test_modules_train_with_their_dropout_on(tmp_path: Path) -> None:
    modules = fresh_modules().eval()
    seen = []

    def losses(batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        seen.append(modules["student"].training)
        return modules["student"](batch.input_ids).square().mean(), {}

    train_phase(PHASE, modules, some_rows(), losses, tmp_path / "state", "cpu")
    assert set(seen) == {True}


def test_batches_are_padded_to_their_own_longest_row(tmp_path: Path) -> None:
    modules = fresh_modules()
    rows = some_rows()
    widths = set()

    def losses(batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        assert batch.input_ids.shape[1] == rows.lengths[batch.rows.numpy()].max()
        widths.add(batch.input_ids.shape[1])
        return modules["student"](batch.input_ids).square().mean(), {}

    train_phase(PHASE, modules, rows, losses, tmp_path / "state", "cpu")
    assert len(widths) > 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["total", "first"])
def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path, bad: float, where: str) -> None:
    modules = fresh_modules()
    calls = 0

    def losses(batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        nonlocal calls
        calls += 1
        fine = modules["student"](batch.input_ids).square().mean()
        broken = fine * bad if calls == 4 else fine
        return (broken, {"first": fine}) if where == "total" else (fine, {"first": broken})

    with pytest.raises(TrainingError) as caught:
        train_phase(PHASE, modules, some_rows(), losses, tmp_path / "state", "cpu")
    assert calls == 4
    assert str(caught.value) == (
        f"practice phase, step 4: {where} is not a finite number; "
        "lower its learning_rate (now 0.01)"
    )
    # a broken state must not be what the next start resumes from
    assert not (tmp_path / "state").exists()


def spy_on_optimizer(monkeypatch: pytest.MonkeyPatch) -> list[torch.optim.Optimizer]:
    """The optimizers that training makes."""
    made: list[torch.optim.Optimizer] = []
    original: Callable[..., torch.optim.Optimizer] = phase_module._optimizer

    def remember(modules: nn.ModuleDict, phase: Phase) -> torch.optim.Optimizer:
        made.append(original(modules, phase))
        return made[-1]

    monkeypatch.setattr(phase_module, "_optimizer", remember)
    return made


def test_the_rate_warms_up_and_falls_to_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = spy_on_optimizer(monkeypatch)
    modules = fresh_modules()
    rates: list[float] = []

    def losses(batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        rates.append(made[0].param_groups[0]["lr"])
        return modules["student"](batch.input_ids).square().mean(), {}

    phase = Phase("rates", 10.0, 12, 0.6, 0.25, 0.0, seed=5)  # 20 steps, 5 of warm-up
    train_phase(phase, modules, some_rows(), losses, tmp_path / "state", "cpu")
    rise = [0.6 * step / 5 for step in (1, 2, 3, 4, 5)]
    fall = [0.6 * left / 15 for left in range(15, 0, -1)]
    assert rates == pytest.approx(rise + fall)


def test_vectors_do_not_decay_and_matrices_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With gradients of zero, all that moves a weight is its decay."""
    modules = fresh_modules()
    before = {name: value.clone() for name, value in modules.state_dict().items()}

    def losses(batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        return (modules["student"](batch.input_ids) * 0.0).sum(), {}

    phase = Phase("decay", 1.0, 32, 0.1, 0.0, 0.5, seed=5)  # one step at the full rate
    train_phase(phase, modules, some_rows(), losses, tmp_path / "state", "cpu")
    for name, value in modules.state_dict().items():
        factor = 1 - 0.1 * 0.5 if value.ndim > 1 else 1.0
        torch.testing.assert_close(value, before[name] * factor)


def test_gradients_are_clipped_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    original = torch.optim.AdamW.step

    def watch(optimizer: torch.optim.AdamW, *arguments: object) -> object:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norms.append(math.sqrt(sum(float(g.square().sum()) for g in gradients)))
        return original(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", watch)
    modules = fresh_modules()

    def losses(batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        return modules["student"](batch.input_ids).square().mean() * 1e4, {}

    train_phase(PHASE, modules, some_rows(), losses, tmp_path / "state", "cpu")
    assert norms == pytest.approx([1.0] * STEPS, rel=1e-4)
