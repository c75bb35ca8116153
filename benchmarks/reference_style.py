"""A task-distillation loop in the style of TinyBERT's published one, to measure ours against.

It does what the reference does, written anew: every row is tokenized by the Python tokenizer and
padded to 128 beforehand; TensorDataset, RandomSampler and DataLoader; float32; teacher and student
return all hidden states and all attentions of all layers (eager attention) and go through pooler
and classifier; one projection serves all hidden states; losses are plain means, padding included;
one Adam update per parameter after the other, without bias correction and with one gradient
clipping per parameter; three losses are read back at each step.

In its favour: the teacher's dropout is off, the student has none, and nothing is saved or logged.
The attentions are compared as they are returned; the reference compares them before the softmax,
with the same arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

LENGTH = 128
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-6


def padded_rows(tokenizer_location: str, texts: Sequence[str]) -> TensorDataset:
    """All texts through the Python tokenizer, one by one, padded to 128, as int64 tensors."""
    from transformers import BertTokenizer

    tokenizer = BertTokenizer.from_pretrained(tokenizer_location)
    columns: tuple[list[list[int]], ...] = ([], [], [])
    for text in texts:
        tokens = ["[CLS]", *tokenizer.tokenize(text)[: LENGTH - 2], "[SEP]"]
        ids = tokenizer.convert_tokens_to_ids(tokens)
        padding = [0] * (LENGTH - len(ids))
        for column, values in zip(columns, (ids, [1] * len(ids), [0] * len(ids)), strict=True):
            column.append(values + padding)
    return TensorDataset(*(torch.tensor(column, dtype=torch.long) for column in columns))


def train(
    teacher: Any,
    student: Any,
    projection: nn.Module,
    layer_map: Sequence[int],
    rows: TensorDataset,
    batch_size: int,
    optimizer: PlainAdam,
    device: str,
) -> float:
    """One pass over the rows; returns the mean loss.

    Args:
        teacher, student: classifiers with eager attention, the teacher in eval mode.
    """
    student.train()
    mean_squared_error = nn.MSELoss()
    total = attention_total = hidden_total = 0.0
    loader = DataLoader(rows, sampler=RandomSampler(rows), batch_size=batch_size)
    for columns in loader:
        ids, mask, types = (column.to(device) for column in columns)
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        learned = student(**inputs, output_attentions=True, output_hidden_states=True)
        projected = [projection(hidden) for hidden in learned.hidden_states]
        with torch.no_grad():
            taught = teacher(**inputs, output_attentions=True, output_hidden_states=True)
        attention_loss = torch.zeros((), device=device)
        for ours, layer in zip(learned.attentions, layer_map, strict=True):
            theirs = taught.attentions[layer - 1]
            attention_loss = attention_loss + mean_squared_error(
                torch.where(ours <= -100, torch.zeros_like(ours), ours),
                torch.where(theirs <= -100, torch.zeros_like(theirs), theirs),
            )
        hidden_loss = torch.zeros((), device=device)
        for ours, layer in zip(projected, (0, *layer_map), strict=True):
            hidden_loss = hidden_loss + mean_squared_error(ours, taught.hidden_states[layer])
        loss = hidden_loss + attention_loss
        attention_total += attention_loss.item()
        hidden_total += hidden_loss.item()
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
        optimizer.step()
        optimizer.zero_grad()
    return total / len(loader)


class PlainAdam:
    """Adam with decoupled weight decay, one parameter after the other, each clipped by itself."""

    def __init__(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> None:
        self.parameters = list(parameters)
        self.learning_rate = learning_rate
        self.moments: dict[int, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for number, weight in enumerate(self.parameters):
            if weight.grad is None:
                continue
            if number not in self.moments:
                self.moments[number] = (torch.zeros_like(weight), torch.zeros_like(weight))
            first, second = self.moments[number]
            nn.utils.clip_grad_norm_([weight], 1.0)
            first.mul_(BETA_1).add_(weight.grad, alpha=1 - BETA_1)
            second.mul_(BETA_2).addcmul_(weight.grad, weight.grad, value=1 - BETA_2)
            update = first / (second.sqrt() + EPSILON)
            if weight.ndim > 1:
                update += 0.01 * weight
            weight.add_(update, alpha=-self.learning_rate)

    def zero_grad(self) -> None:
        """Forget the gradients, as torch's optimizers do."""
        for weight in self.parameters:
            weight.grad = None
