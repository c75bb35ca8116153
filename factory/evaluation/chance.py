"""Checks that a model is better than chance, that is, than any model that ignores the text.

Each check returns the problem as a predicate ("is no better than chance on dev: ..."), or None.
`min_margin` is the required margin over chance; a margin of 0 never passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from factory.data.dataset import Dataset, multi_hot
from factory.evaluation.metrics import mean_recall

if TYPE_CHECKING:
    from factory.evaluation.results import Evaluation

TOLERANCE = 1e-12  # in floating point 0.55 - 0.5 may be below 0.05


def chance_problem_of_classes(
    evaluation: Evaluation, dataset: Dataset, min_margin: float
) -> str | None:
    """Why a classifier's `margin_over_chance` on dev does not reach the minimum."""
    counts = np.array(evaluation.confusion, dtype=np.int64)
    occurring = np.flatnonzero(counts.sum(axis=1))
    predicted = np.flatnonzero(counts.sum(axis=0))
    if len(occurring) == 1:
        return (
            f"cannot be checked: every row of dev has the label {dataset.labels[occurring[0]]!r}, "
            "so always predicting it would be perfect; give a dev set with rows of every label"
        )
    if len(predicted) == 1:
        return f"predicts {dataset.labels[predicted[0]]!r} for every row of dev"
    margin = margin_over_chance(counts)
    if _reaches(margin, min_margin):
        return None
    rows = counts.sum()
    return (
        f"is no better than chance on dev: its mean recall over {len(occurring)} labels is "
        f"{mean_recall(counts):.3f}, guessing gives {1 / len(occurring):.3f}; its accuracy is "
        f"{counts.trace() / rows:.3f}, always predicting the most frequent label gives "
        f"{counts.sum(axis=1).max() / rows:.3f}; {_required(margin, min_margin)}"
    )


def chance_problem_of_numbers(
    evaluation: Evaluation, dataset: Dataset, min_margin: float
) -> str | None:
    """Why Spearman's correlation on dev is not above the minimum."""
    spearman = evaluation.scores["spearman"]
    if spearman.value == spearman.low == spearman.high == 0:
        return "predicts the same value for every row of dev"
    if spearman.value > min_margin:
        return None
    return (
        f"is no better than chance on dev: its Spearman correlation is {spearman.value:.3f}, "
        f"not above {min_margin:g}"
    )


def chance_problem_of_label_sets(
    evaluation: Evaluation, dataset: Dataset, min_margin: float
) -> str | None:
    """Why micro F1 on dev does not exceed that of the best fixed set of labels by the minimum."""
    micro_f1 = evaluation.scores["micro_f1"].value
    constant = best_constant_micro_f1(multi_hot(dataset.dev, len(dataset.labels)))
    margin = micro_f1 - constant
    if _reaches(margin, min_margin):
        return None
    return (
        f"is no better than chance on dev: its micro F1 is {micro_f1:.3f}, always "
        f"predicting the best set of labels for every text gives {constant:.3f}; "
        f"{_required(margin, min_margin)}"
    )


def margin_over_chance(confusion: NDArray[np.int64]) -> float:
    """A classifier's gain in accuracy or in mean recall over one that ignores the text.

    Predictions that do not depend on the text reach, on average, at most the most frequent class's
    share in accuracy, and exactly 1 / classes in mean recall over the classes that occur, however
    often each is predicted (two classes: recall above 1/2 is half of J, Youden 1950). The larger
    gain counts: a class of 97 % leaves no room in accuracy, a hundred rare classes little in mean
    recall. Mean recall alone would pass a model that finds a little more of a rare class for many
    false alarms, so accuracy below the most frequent class's share is subtracted from its gain.

    Shapes:
        confusion: (true classes, predicted classes) counts
    """
    sizes = confusion.sum(axis=1)
    accuracy_gain = float((confusion.trace() - sizes.max()) / sizes.sum())
    recall_gain = mean_recall(confusion) - 1 / np.count_nonzero(sizes)
    return max(accuracy_gain, recall_gain + min(0.0, accuracy_gain))


def best_constant_micro_f1(targets: NDArray[np.bool_]) -> float:
    """Micro F1 of the best prediction that is the same set of labels for every row.

    Of all sets of k labels the k most frequent hit most often, so one set per k is compared:
    2 * (their rows) / (k * rows + all labels of all rows).

    Shapes:
        targets: (rows, labels)
    """
    sizes = np.sort(targets.sum(axis=0))[::-1]
    if not sizes.any():
        return 0.0
    chosen = np.arange(1, len(sizes) + 1)
    return float((2 * np.cumsum(sizes) / (chosen * len(targets) + sizes.sum())).max())


def _reaches(margin: float, min_margin: float) -> bool:
    return margin > 0 and margin >= min_margin - TOLERANCE


def _required(margin: float, min_margin: float) -> str:
    required = f">= {min_margin:g}" if min_margin > 0 else "> 0"
    return f"the gain over chance is {margin:.3f}, required {required}"
