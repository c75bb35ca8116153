"""The batches of the Hugging Face Trainer, each shared by several processes.

The Trainer gives every process batches of its own, fills the last one up with rows it has seen,
and draws each epoch's order in every process anew, from random states that dropout lets drift
apart. Here the first process draws the order, exactly as a Trainer alone would, and every process
takes its rows of each batch; a batch of any size has the gradient it has in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from factory.runtime import distributed as processes
from factory.runtime.distributed import Processes

if TYPE_CHECKING:
    from torch import Tensor

WEIGHT = "row_weight"
RowLosses = Callable[["Tensor", "Tensor"], "Tensor"]


def sharing_trainer(trainer_class: Any, label_weights: Tensor | None) -> Any:
    """A Trainer class whose processes share the rows of each batch; `row_losses` names the loss.

    Args:
        label_weights: weight of the rows of each class, (classes,).
    """

    class SharingTrainer(trainer_class):  # type: ignore[misc]
        """Trains on `per_device_train_batch_size` rows a step, however many processes there are."""

        def get_train_dataloader(self) -> Any:
            """This process's rows of every batch, with their weights."""
            from torch.utils.data import DataLoader

            batches = SharedBatches(
                self._get_train_sampler(), self.args.train_batch_size, processes.current()
            )
            return DataLoader(
                WeightedRows(self.train_dataset),  # type: ignore[arg-type]
                batch_sampler=batches,
                collate_fn=self.data_collator,
                pin_memory=self.args.dataloader_pin_memory,
            )

        def compute_loss(self, model: Any, inputs: dict[str, Any], **_: Any) -> Any:
            """Weighted sum of the rows' losses; its mean over the processes is the batch's mean."""
            weights, labels = inputs.pop(WEIGHT), inputs.pop("labels")
            if label_weights is not None:
                weights = weights * label_weights.to(weights.device)[labels]
            per_row = row_losses(self.model.config.problem_type)
            return (per_row(model(**inputs).logits.float(), labels) * weights).sum()

    return SharingTrainer


class SharedBatches:
    """For each batch of an epoch, (position, weight) of the rows that are this process's.

    Args:
        order: row positions of an epoch, in a new order at every pass.
    """

    def __init__(self, order: Any, batch_size: int, group: Processes) -> None:
        self.order = order
        self.batch_size = batch_size
        self.group = group

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, float]]]:
        order = processes.from_first(lambda: [int(position) for position in self.order])
        for start in range(0, len(order), self.batch_size):
            yield share_of(order[start : start + self.batch_size], self.group)


def share_of(batch: Sequence[int], group: Processes) -> list[tuple[int, float]]:
    """This process's rows of a batch; a process left without any gets one of weight 0."""
    mine = batch[group.rank :: group.count]
    if not mine:
        return [(batch[0], 0.0)]
    return [(position, group.count / len(batch)) for position in mine]


class WeightedRows:
    """Rows looked up by (position, weight); the weight joins the row."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: tuple[int, float]) -> dict[str, Any]:
        position, weight = place
        return {**self.rows[position], WEIGHT: weight}


def row_losses(problem_type: str) -> RowLosses:
    """The loss of each row, (batch,), whose mean is what transformers minimizes for the task."""
    from torch.nn import functional

    def classes(logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits, labels, reduction="none")

    def numbers(logits: Tensor, labels: Tensor) -> Tensor:
        return (logits.squeeze(-1) - labels).square()

    def label_sets(logits: Tensor, labels: Tensor) -> Tensor:
        losses = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return losses.mean(dim=-1)

    return {
        "single_label_classification": classes,
        "regression": numbers,
        "multi_label_classification": label_sets,
    }[problem_type]
