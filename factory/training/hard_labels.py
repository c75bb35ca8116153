"""Training a classifier on annotations: the loss of the teacher and of the undistilled baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from factory.data.dataset import Split, is_multilabel, multi_hot
from factory.models.classifier import forward_logits
from factory.models.encoding import Batch
from factory.training.trainer import BatchLoss


class HardLabelLoss(BatchLoss):
    """Cross entropy against the classes, binary cross entropy of label sets, or squared error.

    Args:
        model: a sequence classifier.
        weigh_classes: multiply each row's cross entropy by its class's weight (`class_weights`).
    """

    def __init__(self, model: Any, split: Split, device: str, weigh_classes: bool = False) -> None:
        super().__init__()
        self.model = model
        self.targets = _targets(split, model.config.num_labels).to(device)
        self.weights: Tensor | None = None
        if weigh_classes:
            weights = class_weights(split.targets, model.config.num_labels)
            self.weights = torch.from_numpy(weights).to(device)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of the batch as `total`."""
        targets = self.targets[batch.rows]
        return {"total": hard_label_loss(forward_logits(self.model, batch), targets, self.weights)}


def hard_label_loss(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over rows; over labels too where several may apply, as in transformers.

    With class weights, the sum of weight times loss is divided by the rows and not by the sum of
    the weights: a batch without the rare class must not weigh more for it.

    Shapes:
        logits: (batch, labels)
        targets: (batch,) class numbers, (batch, labels) booleans, or (batch, 1) numbers to predict
        weights: (labels,) of the classes
    """
    if targets.dtype == torch.bool:
        return functional.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))
    if targets.is_floating_point():
        return functional.mse_loss(logits, targets)
    per_row = functional.cross_entropy(logits, targets, reduction="none")
    return per_row.mean() if weights is None else (weights[targets] * per_row).mean()


def class_weights(targets: Sequence[Any], classes: int) -> NDArray[np.float32]:
    """Rows / (classes * rows of the class), so that the weights of the rows average 1.

    A class without rows gets 0, and the classes that occur share the rows.

    Shapes:
        returns: (classes,)
    """
    counts = np.bincount(np.asarray(targets, dtype=np.int64), minlength=classes)
    occurs = counts > 0
    share = len(targets) / (occurs.sum() * np.maximum(counts, 1))
    return np.where(occurs, share, 0.0).astype(np.float32)


def _targets(split: Split, labels: int) -> Tensor:
    if is_multilabel(split):
        return torch.from_numpy(multi_hot(split, labels))
    if isinstance(split.targets[0], float):
        return torch.tensor(split.targets, dtype=torch.float32).unsqueeze(1)
    return torch.tensor(split.targets, dtype=torch.int64)
