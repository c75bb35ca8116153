"""The training loop: steps, schedule, log, exact resume, divergence, memory, the best epoch."""

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

from factory.errors import TrainingError
from factory.models.encoding import Batch, EncodedRows
from factory.training import trainer
from factory.training.loss_log import LossPoint
from factory.training.trainer import BatchLoss, Phase, total_steps, train

ROWS = 23  # batches of 4: five full ones and one of 3
PHASE = Phase("practice", 3.0, 4, 1e-2, 0.1, 0.01, seed=5)
STEPS = 18
Terms = dict[str, Tensor]


class PowerCut(Exception):
    """What interrupts a run in these tests."""


def some_rows(count: int = ROWS) -> EncodedRows:
    random = np.random.default_rng(0)
    ids = [random.integers(1, 30, random.integers(2, 9)).astype(np.int32) for _ in range(count)]
    return EncodedRows(ids, [np.zeros_like(row) for row in ids], pad_id=0)


def fresh_network() -> nn.Module:
    """A small network whose dropout makes every step depend on the random state."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Embedding(30, 8), nn.Dropout(0.3), nn.LayerNorm(8), nn.Linear(8, 2))


class Practice(BatchLoss):
    """A loss that records the batches it was given and can fail at a step.

    Args:
        change: applied to the terms of each call, with the number of calls.
    """

    def __init__(
        self, cut_at: int | None = None, change: Callable[[Terms, int], Terms] | None = None
    ) -> None:
        super().__init__()
        self.network = fresh_network()
        self.cut_at = cut_at
        self.change = change
        self.batches: list[list[int]] = []
        self.modes: list[bool] = []

    def forward(self, batch: Batch) -> Terms:
        if len(self.batches) == self.cut_at:
            raise PowerCut
        self.batches.append(batch.rows.tolist())
        self.modes.append(self.training)
        outputs = self.network(batch.input_ids)
        mask = batch.attention_mask.unsqueeze(-1)
        target = (batch.rows % 3).float()[:, None]
        error = ((outputs * mask).sum(1) - target).square()
        terms = {
            "total": error.mean(),
            "first": error[:, 0].mean(),
            "second": error[:, 1].mean(),
        }
        return terms if self.change is None else self.change(terms, len(self.batches))


def run(
    file: Path,
    phase: Phase = PHASE,
    cut_at: int | None = None,
    *,
    rows: int = ROWS,
    change: Callable[[Terms, int], Terms] | None = None,
    score: Callable[[], float] | None = None,
) -> tuple[dict[str, Tensor], list[LossPoint], Practice]:
    """One run from fresh weights; resumes from `file` if it is there."""
    practice = Practice(cut_at, change)
    points = train(phase, practice, some_rows(rows), file, "cpu", score)
    return practice.network.state_dict(), points, practice


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


@settings(max_examples=50)
@given(st.integers(1, 5000), st.integers(1, 64), st.integers(1, 20_000))
def test_steps_given_as_epochs_come_back(rows: int, batch_size: int, steps: int) -> None:
    per_epoch = math.ceil(rows / batch_size)
    phase = Phase("any", steps / per_epoch, batch_size, 1e-3, 0.1, 0.0, 1)
    assert total_steps(phase, rows) == steps


def test_every_epoch_sees_every_row_once_in_a_new_order(tmp_path: Path) -> None:
    _, _, practice = run(tmp_path / "state")
    assert len(practice.batches) == STEPS
    epochs = [practice.batches[start : start + 6] for start in (0, 6, 12)]
    for batches in epochs:
        assert sorted(itertools.chain(*batches)) == list(range(ROWS))
    assert epochs[0] != epochs[1] != epochs[2]


def test_part_of_an_epoch_has_the_first_batches_of_the_whole(tmp_path: Path) -> None:
    _, _, part = run(tmp_path / "part", Phase("part", 1.5, 4, 1e-2, 0.1, 0.01, seed=5))
    _, _, whole = run(tmp_path / "whole")
    assert part.batches == whole.batches[:9]


def test_training_is_deterministic_and_the_seed_counts(tmp_path: Path) -> None:
    torch.manual_seed(99)
    first, points, _ = run(tmp_path / "first")
    torch.manual_seed(100)
    second, points_again, _ = run(tmp_path / "second")
    assert same(first, second)
    assert points == points_again
    other, _, _ = run(tmp_path / "third", Phase("practice", 3.0, 4, 1e-2, 0.1, 0.01, seed=6))
    assert not same(first, other)


def test_the_loss_falls_and_every_term_is_logged(tmp_path: Path) -> None:
    phase = Phase("practice", 20.0, 4, 3e-2, 0.1, 0.0, seed=5)
    _, points, _ = run(tmp_path / "state", phase)
    values = {term: [p.value for p in points if p.term == term] for term in ("total", "first")}
    assert np.mean(values["total"][-6:]) < 0.5 * np.mean(values["total"][:6])
    assert {point.term for point in points} == {"total", "first", "second"}
    assert {point.phase for point in points} == {"practice"}
    assert max(point.step for point in points) == total_steps(phase, ROWS) == 120
    start = {p.term: p.value for p in points if p.step == 0}
    for point in points:
        assert point.of_start == pytest.approx(point.value / start[point.term])


def test_a_point_is_the_mean_since_the_point_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, every, _ = run(tmp_path / "every")
    single = {p.step: p.value for p in every if p.term == "second"}
    assert sorted(single) == list(range(STEPS + 1))
    assert single[0] == single[1]  # the first batch, before any step
    monkeypatch.setattr(trainer, "LOG_POINTS", 4)  # every 18 // 4 steps, and at the end
    _, points, _ = run(tmp_path / "some")
    means = {p.step: p.value for p in points if p.term == "second"}
    assert sorted(means) == [0, 4, 8, 12, 16, 18]
    for step, start in zip((4, 8, 12, 16, 18), (1, 5, 9, 13, 17), strict=True):
        expected = np.mean([single[earlier] for earlier in range(start, step + 1)])
        assert means[step] == pytest.approx(expected, rel=1e-5)


@settings(max_examples=6, deadline=None)
@given(cut_at=st.integers(0, STEPS - 1), log_points=st.sampled_from([1, 4, 7, 100]))
def test_an_interrupted_run_ends_with_the_same_weights_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, cut_at: int, log_points: int
) -> None:
    directory = tmp_path_factory.mktemp("resume")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "LOG_POINTS", log_points)
        whole, whole_points, uncut = run(directory / "whole")
        patch.setattr(trainer, "CHECKPOINT_SECONDS", -1.0)  # at every log point
        with pytest.raises(PowerCut):
            run(directory / "cut", cut_at=cut_at)
        torch.manual_seed(12345)
        weights, points, resumed = run(directory / "cut")
    assert same(weights, whole)
    assert points == whole_points
    log_every = max(1, STEPS // log_points)
    saved = cut_at // log_every * log_every
    assert resumed.batches == uncut.batches[saved:]


def test_a_run_interrupted_twice_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _, _ = run(tmp_path / "whole")
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", -1.0)
    for cut_at in (7, 4):
        with pytest.raises(PowerCut):
            run(tmp_path / "cut", cut_at=cut_at)
    weights, _, resumed = run(tmp_path / "cut")
    assert len(resumed.batches) == STEPS - 7 - 4
    assert same(weights, whole)


def test_no_checkpoint_is_written_before_its_time(tmp_path: Path) -> None:
    with pytest.raises(PowerCut):
        run(tmp_path / "state", cut_at=17)
    assert not (tmp_path / "state").exists()


def test_a_half_written_checkpoint_is_never_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _, _ = run(tmp_path / "whole")
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", -1.0)
    with pytest.raises(PowerCut):
        run(tmp_path / "cut", cut_at=5)
    before = (tmp_path / "cut").read_bytes()

    def failing_save(_content: object, file: Path) -> None:
        file.write_bytes(b"half a checkp")
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", failing_save)
        with pytest.raises(PowerCut):
            run(tmp_path / "cut")
    assert (tmp_path / "cut").read_bytes() == before
    weights, _, _ = run(tmp_path / "cut")
    assert same(weights, whole)


def test_a_finished_phase_is_not_trained_again(tmp_path: Path) -> None:
    weights, points, _ = run(tmp_path / "state")
    again, points_again, practice = run(tmp_path / "state", cut_at=0)
    assert practice.batches == []
    assert same(again, weights)
    assert points_again == points


def test_no_epochs_change_nothing(tmp_path: Path) -> None:
    phase = Phase("none", 0.0, 4, 1e-2, 0.1, 0.01, seed=5)
    weights, points, _ = run(tmp_path / "state", phase, cut_at=0)
    assert same(weights, fresh_network().state_dict())
    assert points == []


def test_batches_are_padded_to_their_own_longest_row(tmp_path: Path) -> None:
    rows = some_rows()
    widths = set()

    class Watching(Practice):
        def forward(self, batch: Batch) -> Terms:
            assert batch.input_ids.shape[1] == rows.lengths[batch.rows.numpy()].max()
            widths.add(batch.input_ids.shape[1])
            return super().forward(batch)

    train(PHASE, Watching(), rows, tmp_path / "state", "cpu")
    assert len(widths) > 1


@pytest.mark.parametrize(("bad", "where"), [(math.nan, "total"), (math.inf, "first")])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, bad: float, where: str) -> None:
    calls = []

    def change(terms: Terms, call: int) -> Terms:
        calls.append(call)
        return {**terms, where: terms[where] * bad} if call == 4 else terms

    with pytest.raises(TrainingError) as caught:
        run(tmp_path / "state", change=change)
    assert len(calls) == 4
    assert str(caught.value) == (
        f"practice phase, step 4: {where} is not a finite number; "
        "lower its learning_rate (now 0.01)"
    )
    # a broken state must not be what the next start resumes from
    assert not (tmp_path / "state").exists()


def spy_on_steps(
    monkeypatch: pytest.MonkeyPatch, look: Callable[[torch.optim.AdamW], None]
) -> None:
    """Call `look` before each step of the optimizer."""
    original = torch.optim.AdamW.step

    def step(optimizer: torch.optim.AdamW, *arguments: object) -> object:
        look(optimizer)
        return original(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)


def test_the_rate_warms_up_and_falls_to_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    spy_on_steps(monkeypatch, lambda optimizer: rates.append(optimizer.param_groups[0]["lr"]))
    # 20 steps, 5 of warm-up
    run(tmp_path / "state", Phase("rates", 10.0, 12, 0.6, 0.25, 0.0, seed=5))
    rise = [0.6 * step / 5 for step in (1, 2, 3, 4, 5)]
    fall = [0.6 * left / 15 for left in range(15, 0, -1)]
    assert rates == pytest.approx(rise + fall)


def test_vectors_do_not_decay_and_matrices_do(tmp_path: Path) -> None:
    """With gradients of zero, all that moves a weight is its decay."""
    before = fresh_network().state_dict()
    phase = Phase("decay", 1.0, 32, 0.1, 0.0, 0.5, seed=5)  # one step at the full rate
    weights, _, _ = run(
        tmp_path / "state", phase, change=lambda terms, _: {"total": terms["total"] * 0.0}
    )
    for name, value in weights.items():
        factor = 1 - 0.1 * 0.5 if value.ndim > 1 else 1.0
        torch.testing.assert_close(value, before[name] * factor)


def test_gradients_are_clipped_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []

    def look(optimizer: torch.optim.AdamW) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norms.append(math.sqrt(sum(float(g.square().sum()) for g in gradients)))

    spy_on_steps(monkeypatch, look)
    run(tmp_path / "state", change=lambda terms, _: {"total": terms["total"] * 1e4})
    assert norms == pytest.approx([1.0] * STEPS, rel=1e-4)


# memory


class SmallMemory(Practice):
    """Memory holds two rows from the third step on; no dropout, so that parts can be compared."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.network[1].p = 0.0
        self.fits = rows

    def forward(self, batch: Batch) -> Terms:
        terms = super().forward(batch)
        if len(batch.rows) > self.fits and len(self.batches) > 2:
            terms["total"].backward()  # what was computed before memory ran out must not count
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 MiB")
        return terms


def test_a_batch_that_does_not_fit_accumulates_gradients_over_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, parts = SmallMemory(ROWS), SmallMemory(2)
    points = train(PHASE, whole, some_rows(), tmp_path / "whole", "cpu")
    again = train(PHASE, parts, some_rows(), tmp_path / "parts", "cpu")
    assert max(len(batch) for batch in parts.batches[4:]) <= 2
    assert "accumulated over 2 parts of each batch" in capsys.readouterr().err
    for name, value in parts.network.state_dict().items():
        torch.testing.assert_close(value, whole.network.state_dict()[name], rtol=1e-4, atol=1e-6)
    assert [p.value for p in again] == pytest.approx([p.value for p in points], rel=1e-4)


def test_memory_that_does_not_hold_one_row_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="not even one row fits"):
        train(PHASE, SmallMemory(0), some_rows(), tmp_path / "state", "cpu")


# the best epoch


def test_the_best_epoch_is_kept_and_survives_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phase = Phase("practice", 4.0, 4, 1e-2, 0.1, 0.0, seed=5)
    values = (0.1, 0.3, 0.9, 0.4, 0.9)  # the second epoch is the best, the fourth equals it
    scores = iter(values)
    best, _, _ = run(tmp_path / "best", phase, score=lambda: next(scores))
    last, _, _ = run(tmp_path / "last", phase)
    assert not same(best, last)

    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", -1.0)
    calls: list[float] = []

    def failing() -> float:
        if len(calls) == 3:
            raise PowerCut
        calls.append(values[len(calls)])
        return calls[-1]

    with pytest.raises(PowerCut):
        run(tmp_path / "cut", phase, score=failing)
    rest = iter(values[3:])
    resumed, _, _ = run(tmp_path / "cut", phase, score=lambda: next(rest))
    assert same(best, resumed)


def test_the_module_is_in_eval_mode_while_scored(tmp_path: Path) -> None:
    practice = Practice()
    modes: list[bool] = []

    def score() -> float:
        modes.append(practice.network.training)
        return 0.0

    train(PHASE, practice, some_rows(), tmp_path / "state", "cpu", score)
    assert modes == [False] * 4
    assert set(practice.modes) == {True}


def test_a_phase_that_only_harms_leaves_the_weights_it_was_given(tmp_path: Path) -> None:
    falling = iter((0.9, 0.5, 0.4, 0.3))
    weights, _, _ = run(tmp_path / "harm", score=lambda: next(falling))
    assert same(weights, fresh_network().state_dict())
