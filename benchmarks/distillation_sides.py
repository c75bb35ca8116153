"""The ways of training that `distillation_speed.py` times: ours, the reference's, ours undone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
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

from factory.distill import phase as phase_module
from factory.distill.intermediate import (
    intermediate_losses,
    train_intermediate,
    weighted_sum,
)
from factory.distill.phase import Phase, train_phase
from factory.distill.phases import intermediate_phase
from factory.distill.student import StudentStart, start_student
from factory.distill.vocabulary import used_vocabulary
from factory.models.classifier import TorchClassifier
from factory.models.encoding import Batch, EncodedRows, collate
from factory.recipe.training import DistillSettings, StudentSettings

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


def chosen(rows: EncodedRows, positions: NDArray[np.int64]) -> EncodedRows:
    """Some of the rows."""
    return EncodedRows(
        [rows.input_ids[position] for position in positions],
        [rows.token_type_ids[position] for position in positions],
        rows.pad_id,
    )


def make_sides(
    bench: Bench, folder: Path, stack: contextlib.ExitStack, ablation: bool
) -> dict[str, Side]:
    """Every way of training that is timed, the product's first."""
    start = bench.start()
    teacher = bench.teacher.model
    rows = small_vocabulary(bench, stack, teacher, start)
    product = product_side(bench, teacher.bert, start, rows, folder)
    sides = {"product": product, "reference-style": reference_side(bench)}
    if not ablation:
        return sides
    few = chosen(rows, np.arange(len(rows) // SLOW_SHARE))
    returning_teacher, returning = eager(bench)
    returning_rows = small_vocabulary(bench, stack, returning_teacher, returning)
    sides |= {
        "rows padded to 128": patched(
            product_side(bench, teacher.bert, start, few, folder), "collate", padded_collate
        ),
        "batches not sorted by length": patched(product, "epoch_order", unsorted_order),
        "whole vocabulary": product_side(
            bench, fresh_teacher(bench).bert, bench.start(), bench.rows, folder
        ),
        "everything of every layer returned": returning_side(
            bench, returning_teacher, returning, returning_rows, folder
        ),
        "optimizer not fused": patched(product, "_optimizer", plain_optimizer),
    }
    if bench.device == "cuda":
        sides["float32"] = without_autocast(product)
    else:
        threads = 1 if torch.get_num_threads() > 1 else 2
        sides[f"{threads} thread(s)"] = with_threads(product, threads)
    return sides


def small_vocabulary(
    bench: Bench, stack: contextlib.ExitStack, teacher: Any, start: StudentStart
) -> EncodedRows:
    """The sample renumbered to the words the whole set uses, and both models cut to them."""
    berts = (teacher.bert, start.model.bert)
    return chosen(stack.enter_context(used_vocabulary(bench.everything, *berts)), bench.sample)


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
    bench: Bench, teacher_bert: Any, start: StudentStart, rows: EncodedRows, folder: Path
) -> Side:
    """`train_intermediate` on one pass over the rows, its last checkpoint included."""
    checkpoint = folder / "intermediate.checkpoint"

    def run() -> int:
        checkpoint.unlink(missing_ok=True)
        train_intermediate(
            bench.phase,
            teacher_bert,
            start,
            bench.layer_map,
            rows,
            np.ones(len(rows), dtype=np.float32),
            bench.distill.intermediate,
            checkpoint,
            bench.device,
        )
        return len(rows)

    return run


@dataclass(frozen=True, slots=True)
class Returned:
    """What a model returned, in the form of a recording."""

    heads: int
    hidden: tuple[Tensor, ...]
    attentions: tuple[Tensor, ...]

    def embeddings(self) -> Tensor:
        """The embedding output."""
        return self.hidden[0]

    def scores(self, layer: int) -> Tensor:
        """The attentions of a layer, counted from 1."""
        return self.attentions[layer - 1]


def returned(model: Any, inputs: Mapping[str, Tensor]) -> Returned:
    """A forward pass of a whole classifier that returns everything."""
    output = model(**inputs, output_attentions=True, output_hidden_states=True)
    return Returned(model.config.num_attention_heads, output.hidden_states, output.attentions)


def returning_side(
    bench: Bench, teacher: Any, start: StudentStart, rows: EncodedRows, folder: Path
) -> Side:
    """The product's phase, but on whole models that return everything of every layer."""
    checkpoint = folder / "returning.checkpoint"
    modules = nn.ModuleDict({"student": start.model, "projections": start.projections})

    def losses(batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        inputs = {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "token_type_ids": batch.token_type_ids,
        }
        with torch.no_grad():
            target = returned(teacher, inputs)
        student = returned(start.model, inputs)
        terms = intermediate_losses(
            student, target, start.projections, bench.layer_map, batch.attention_mask, batch.share
        )
        total = weighted_sum(terms, bench.distill.intermediate, student.heads, batch.done)
        return total, terms

    def run() -> int:
        checkpoint.unlink(missing_ok=True)
        train_phase(bench.phase, modules, rows, losses, checkpoint, bench.device)
        return len(rows)

    return run


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


def patched(side: Side, name: str, replacement: Any) -> Side:
    """A side with one function of `factory.distill.phase` replaced."""

    def run() -> int:
        with mock.patch.object(phase_module, name, replacement):
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


def plain_optimizer(modules: nn.ModuleDict, phase: Phase) -> torch.optim.Optimizer:
    """AdamW, one parameter after the other."""
    return torch.optim.AdamW(
        modules.parameters(), phase.learning_rate, weight_decay=phase.weight_decay, foreach=False
    )


def without_autocast(side: Side) -> Side:
    """A side in float32."""

    def run() -> int:
        with mock.patch.object(torch, "autocast", return_value=contextlib.nullcontext()):
            return side()

    return run


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
