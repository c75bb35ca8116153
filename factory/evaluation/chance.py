"""Whether a model knows more than one that answers without reading the text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.data.dataset import Dataset, multi_hot
from factory.errors import TrainingError
from factory.evaluation.multilabel_metrics import best_constant_micro_f1

TIE = 1e-12  # margins arrive as differences of floats: 0.55 - 0.5 may fall short of 0.05


def check_student(evaluation: Mapping[str, Any], dataset: Dataset) -> None:
    """Refuse a student that does no better on dev than a constant answer.

    Args:
        evaluation: the facts of its evaluation on dev.

    Raises:
        TrainingError: with the numbers.
    """
    reason = unfitness(evaluation, dataset, 0.0)
    if reason is not None:
        raise TrainingError(
            f"the student {reason}. The distillation did not work: see the loss curve in "
            "losses.csv of the distill stage, and try more epochs or another learning rate in "
            "distill.intermediate and distill.prediction"
        )


def unfitness(evaluation: Mapping[str, Any], dataset: Dataset, min_margin: float) -> str | None:
    """Why a model is no better than chance by `min_margin`, as a predicate; None when it is.

    Args:
        evaluation: the facts of its evaluation on dev.
        min_margin: what `margin_over_chance` must reach, above 0 in any case; for regression,
            what Spearman's correlation must exceed; for sets of labels, what micro F1 must gain
            over the best fixed set.
    """
    if dataset.task == "regression":
        return _unfit_numbers(evaluation["scores"]["spearman"], min_margin)
    if dataset.task == "multilabel":
        return _unfit_label_sets(evaluation["scores"]["micro_f1"], dataset, min_margin)
    counts = np.array(evaluation["confusion"], dtype=np.int64)
    occurring = np.flatnonzero(counts.sum(axis=1))
    answered = np.flatnonzero(counts.sum(axis=0))
    if len(occurring) == 1:
        return (
            f"cannot be judged: every row of dev has the label {dataset.labels[occurring[0]]!r}, "
            "so always answering it would be perfect; give a dev set with rows of every label"
        )
    if len(answered) == 1:
        return f"answers {dataset.labels[answered[0]]!r} for every row of dev, whatever the text"
    margin = margin_over_chance(counts)
    if margin > 0 and margin >= min_margin - TIE:
        return None
    rows = counts.sum()
    return (
        f"is no better than chance on dev: its mean recall over {len(occurring)} labels is "
        f"{_mean_recall(counts):.3f}, guessing gives {1 / len(occurring):.3f}; its accuracy is "
        f"{counts.trace() / rows:.3f}, always answering the most frequent label gives "
        f"{counts.sum(axis=1).max() / rows:.3f}; what it gains over that, {margin:.3f}, must be "
        f"{_wanted(min_margin)}"
    )


def margin_over_chance(confusion: NDArray[np.int64]) -> float:
    """What a model gains over answering without reading: in accuracy or in mean recall.

    Answers that do not depend on the text reach, on average, at most the most frequent class's
    share in accuracy, and exactly 1 / classes in mean recall over the classes that occur, however
    often each is answered (two classes: recall above 1/2 is half of J, Youden 1950). The larger
    gain counts: a class of 97 % leaves no room in accuracy, a hundred rare classes little in mean
    recall. Mean recall alone would pass a model that finds a little more of a rare class for many
    false alarms, so accuracy below the most frequent class's share is taken off its gain.

    Shapes:
        confusion: (true classes, answered classes) counts
    """
    sizes = confusion.sum(axis=1)
    accuracy_gain = float((confusion.trace() - sizes.max()) / sizes.sum())
    recall_gain = _mean_recall(confusion) - 1 / np.count_nonzero(sizes)
    return max(accuracy_gain, recall_gain + min(0.0, accuracy_gain))


def _mean_recall(confusion: NDArray[np.int64]) -> float:
    sizes = confusion.sum(axis=1)
    occurs = sizes > 0
    return float((confusion.diagonal()[occurs] / sizes[occurs]).mean())


def _unfit_numbers(spearman: Mapping[str, float], min_margin: float) -> str | None:
    if spearman["value"] == spearman["low"] == spearman["high"] == 0:
        return "gives the same value for every row of dev, whatever the text"
    if spearman["value"] > min_margin:
        return None
    return (
        f"is no better than chance on dev: its Spearman correlation is {spearman['value']:.3f}, "
        f"not above {min_margin:g}"
    )


def _unfit_label_sets(
    micro_f1: Mapping[str, float], dataset: Dataset, min_margin: float
) -> str | None:
    constant = best_constant_micro_f1(multi_hot(dataset.dev, len(dataset.labels)))
    margin = micro_f1["value"] - constant
    if margin > 0 and margin >= min_margin - TIE:
        return None
    return (
        f"is no better than chance on dev: its micro F1 is {micro_f1['value']:.3f}, always "
        f"answering the best set of labels for every text gives {constant:.3f}; what it gains "
        f"over that, {margin:.3f}, must be {_wanted(min_margin)}"
    )


def _wanted(min_margin: float) -> str:
    return f"at least {min_margin:g}" if min_margin > 0 else "above 0"
