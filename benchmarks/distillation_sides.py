"""The ways of training that `distillation_speed.py` times: ours, the reference's, ours undone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import reference_style
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from factory.distill import tinybert
from factory.distill.student import StudentStart, start_student
from factory.distill.tinybert import IntermediateLoss
from factory.distill.transfer_set import intermediate_phase
from factory.models.classifier import TorchClassifier
from factory.models.encoding import Batch, EncodedRows, collate, select_rows
from factory.recipe.training import DistillSettings, StudentSettings
from factory.training import trainer
from factory.training.embedding_subset import embedding_subset
from factory.training.trainer import Phase

REFERENCE_LENGTH = reference_style.LENGTH
SLOW_SHARE = 8

Side = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Bench:
    """What both sides work on; `rows` are the sample, `everything` all rows of the set."""

    texts: list[str]
    rows: EncodedRows
    everything: EncodedRows
    sample: NDArray[np.int64]
    location: str
    teacher: TorchClassifier
    layer_map: tuple[int, ...]
    distill: DistillSettings
    device: str

    @property
    def phase(self) -> Phase:
        """One pass over the rows, at the recipe's default settings."""
        settings = self.distill.intermediate.model_copy(update={"epochs": 1.0})
        return intermediate_phase(self.distill.model_copy(update={"intermediate": settings}))

    def start(self) -> StudentStart:
        """A new random student: where it starts does not change how fast it trains."""
        settings = StudentSettings(start="random")
        return start_student(
            settings, None, self.teacher, self.layer_map, self.rows, self.distill.seed
        )


def make_sides(
    bench: Bench, folder: Path, stack: contextlib.ExitStack, ablation: bool
) -> dict[str, Side]:
    """Every way of training that is timed, the product's first."""
    start = bench.start()
    teacher = bench.teacher.model
    stack.enter_context(embedding_subset(bench.everything, teacher, start.model))
    rows = select_rows(bench.everything, bench.sample)
    product = product_side(bench, teacher, start, rows, folder)
    sides = {"product": product, "reference-style": reference_side(bench)}
    if not ablation:
        return sides
    few = select_rows(rows, np.arange(len(rows) // SLOW_SHARE))
    returning_teacher, returning = eager(bench)
    stack.enter_context(embedding_subset(bench.everything, returning_teacher, returning.model))
    sides |= {
        "rows padded to 128": patched(
            product_side(bench, teacher, start, few, folder), trainer, "collate", padded_collate
        ),
        "batches not sorted by length": patched(product, trainer, "epoch_order", unsorted_order),
        "whole vocabulary": product_side(
            bench, fresh_teacher(bench), bench.start(), bench.rows, folder
        ),
        "everything of every layer returned": patched(
            product_side(bench, returning_teacher, returning, rows, folder),
            tinybert,
            "activations_of",
            returned,
        ),
        "optimizer not fused": patched(product, trainer, "_optimizer", plain_optimizer),
    }
    if bench.device == "cuda":
        sides["float32"] = without_autocast(product)
    else:
        threads = 1 if torch.get_num_threads() > 1 else 2
        sides[f"{threads} thread(s)"] = with_threads(product, threads)
    return sides


def fresh_teacher(bench: Bench, **options: Any) -> Any:
    """The teacher once more, with its whole embedding table."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(bench.location, **options)
    return model.to(bench.device).eval().requires_grad_(False)


def eager(bench: Bench) -> tuple[Any, StudentStart]:
    """Teacher and student that can return their attentions."""
    from transformers import AutoModelForSequenceClassification

    start = bench.start()
    student = AutoModelForSequenceClassification.from_config(
        start.model.config, attn_implementation="eager"
    )
    teacher = fresh_teacher(bench, attn_implementation="eager")
    return teacher, StudentStart(student.to(bench.device), start.projections)


def product_side(
    bench: Bench, teacher: Any, start: StudentStart, rows: EncodedRows, folder: Path
) -> Side:
    """The intermediate phase of one pass over the rows, its last checkpoint included."""
    checkpoint = folder / "intermediate.checkpoint"

    def run() -> int:
        checkpoint.unlink(missing_ok=True)
        settings = bench.distill.intermediate
        loss = IntermediateLoss(start, teacher, bench.layer_map, settings)
        trainer.train(bench.phase, loss, rows, checkpoint, bench.device)
        return len(rows)

    return run


@dataclass(frozen=True, slots=True)
class Returned:
    """What a model returned, in the form of its activations."""

    heads: int
    embedding: Tensor
    hidden: tuple[Tensor, ...]
    attentions: tuple[Tensor, ...]

    def scores(self, layer: int) -> Tensor:
        """The attentions of a layer, counted from 1."""
        return self.attentions[layer - 1]


def returned(bert: Any, batch: Batch, _layers: Sequence[int]) -> Returned:
    """A forward pass of a whole encoder that returns everything."""
    output = bert(
        batch.input_ids,
        batch.attention_mask,
        batch.token_type_ids,
        output_attentions=True,
        output_hidden_states=True,
    )
    states = output.hidden_states
    return Returned(bert.config.num_attention_heads, states[0], states, output.attentions)


def reference_side(bench: Bench) -> Side:
    """One pass of the reference-style loop over the first eighth of the sample."""
    teacher, start = eager(bench)
    projection = start.projections[0]
    rows = reference_style.padded_rows(bench.location, bench.texts[: len(bench.rows) // SLOW_SHARE])
    weights = [*start.model.parameters(), *projection.parameters()]
    optimizer = reference_style.PlainAdam(weights, bench.phase.learning_rate / 10)

    def run() -> int:
        reference_style.train(
            teacher,
            start.model,
            projection,
            bench.layer_map,
            rows,
            bench.phase.batch_size,
            optimizer,
            bench.device,
        )
        return len(rows)

    return run


def patched(side: Side, module: Any, name: str, replacement: Any) -> Side:
    """A side with one function of a module replaced."""

    def run() -> int:
        with mock.patch.object(module, name, replacement):
            return side()

    return run


def padded_collate(rows: EncodedRows, positions: NDArray[np.int64], *others: Any) -> Batch:
    """The product's batch, padded to 128."""
    batch = collate(rows, positions, *others)
    short = (0, REFERENCE_LENGTH - batch.input_ids.shape[1])
    return replace(
        batch,
        input_ids=functional.pad(batch.input_ids, short, value=rows.pad_id),
        token_type_ids=functional.pad(batch.token_type_ids, short),
        attention_mask=functional.pad(batch.attention_mask, short),
    )


def unsorted_order(
    lengths: NDArray[np.int64], batch_size: int, seed: int, epoch: int
) -> list[NDArray[np.int64]]:
    """Shuffled rows cut into batches as they come."""
    order = np.random.default_rng([seed, epoch]).permutation(len(lengths))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def plain_optimizer(model: nn.Module, phase: Phase) -> torch.optim.Optimizer:
    """AdamW, one parameter after the other."""
    return torch.optim.AdamW(
        model.parameters(), phase.learning_rate, weight_decay=phase.weight_decay, foreach=False
    )


def without_autocast(side: Side) -> Side:
    """A side in float32."""
    original = trainer.Accelerator

    def in_float32(**options: Any) -> Any:
        return original(**{**options, "mixed_precision": "no"})

    return patched(side, trainer, "Accelerator", in_float32)


def with_threads(side: Side, threads: int) -> Side:
    """A side on another number of threads."""

    def run() -> int:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return side()
        finally:
            torch.set_num_threads(before)

    return run
