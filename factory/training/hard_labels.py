"""Training a classifier on annotations: the loss of the teacher and of the undistilled baseline."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from factory.data.dataset import Split
from factory.models.classifier import forward_logits
from factory.models.encoding import Batch
from factory.models.tasks import task_of
from factory.training.trainer import BatchLoss


class HardLabelLoss(BatchLoss):
    """The task's loss against the annotations, averaged over rows.

    With class weights, the sum of weight times loss is divided by the rows and not by the sum of
    the weights: a batch without the rare class must not weigh more for it.

    Args:
        model: a sequence classifier.
        weigh_classes: multiply each row's loss by its class's weight (`class_weights`).
    """

    def __init__(self, model: Any, split: Split, device: str, weigh_classes: bool = False) -> None:
        super().__init__()
        self.model = model
        task, labels = task_of(split), model.config.num_labels
        targets = task.targets(split, labels)
        weights = class_weights(targets, labels)[targets] if weigh_classes else np.ones(len(split))
        self.loss = task.label_loss
        self.targets = torch.from_numpy(targets).to(device)
        self.row_weights = torch.from_numpy(weights.astype(np.float32)).to(device)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of the batch as `total`."""
        per_row = self.loss(forward_logits(self.model, batch), self.targets[batch.rows])
        return {"total": (self.row_weights[batch.rows] * per_row).mean()}


def class_weights(targets: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """Rows / (classes * rows of the class), so that the weights of the rows average 1.

    A class without rows gets 0, and the classes that occur share the rows.

    Shapes:
        targets: (rows,); returns: (classes,)
    """
    counts = np.bincount(targets, minlength=classes)
    occurs = counts > 0
    share = len(targets) / (occurs.sum() * np.maximum(counts, 1))
    return np.where(occurs, share, 0.0).astype(np.float32)
