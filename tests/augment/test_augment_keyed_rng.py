"""Random numbers by key: uniform and independent of order."""

from __future__ import annotations

import numpy as np

from factory.augment import keyed_rng


def test_uniform_over_rows_copies_and_purposes() -> None:
    bits = keyed_rng.random_bits(
        7, np.arange(5)[:, None, None], np.arange(100)[:, None], np.arange(100)
    )
    values = keyed_rng.uniform(bits)
    assert values.min() >= 0.0
    assert values.max() < 1.0
    assert len(np.unique(bits)) == bits.size
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        assert abs(values.mean(axis=others) - 0.5).max() < 0.06  # 4.6 standard deviations
    histogram = np.histogram(values, bins=20, range=(0, 1))[0]
    # 50,000 draws in 20 bins: chi square with 19 degrees of freedom, 1 in 10,000 beyond 50
    assert ((histogram - 2500) ** 2 / 2500).sum() < 50
    flat = values[:2].reshape(2, -1)
    assert abs(np.corrcoef(flat[0], flat[1])[0, 1]) < 0.03


def test_a_draw_depends_on_its_key_alone() -> None:
    rows = np.array([3, 9, 4])
    together = keyed_rng.random_bits(1, rows, 5)
    alone = np.array([keyed_rng.random_bits(1, np.array([row]), 5)[0] for row in rows])
    np.testing.assert_array_equal(together, alone)
    assert keyed_rng.random_bits(1, [2], 3)[0] != keyed_rng.random_bits(1, [3], 2)[0]
    assert keyed_rng.random_bits(1, [2])[0] != keyed_rng.random_bits(2, [2])[0]


def test_a_choice_is_uniform_whatever_the_order_of_the_candidates() -> None:
    bits = keyed_rng.random_bits(3, np.arange(6000))
    words = ["shop", "lamp", "shoe", "late"]
    known = np.array([keyed_rng.word_key(word) for word in words], dtype=np.uint64)
    first = keyed_rng.choose(bits, np.broadcast_to(known, (6000, 4)))
    assert abs(np.bincount(first) - 1500).max() < 150
    order = np.array([2, 0, 3, 1])
    second = keyed_rng.choose(bits, np.broadcast_to(known[order], (6000, 4)))
    np.testing.assert_array_equal(order[second], first)


def test_a_missing_candidate_is_never_chosen() -> None:
    bits = keyed_rng.random_bits(3, np.arange(500))
    there = np.zeros((500, 3), dtype=bool)
    there[:, 1] = True
    known = np.broadcast_to(np.arange(3, dtype=np.uint64), (500, 3))
    assert set(keyed_rng.choose(bits, known, there).tolist()) == {1}
