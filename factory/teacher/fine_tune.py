"""Fine-tuning with the Hugging Face Trainer, resumable and with our own progress."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from factory.data.dataset import Dataset, multi_hot
from factory.models.classifier import takes_token_types
from factory.models.encoding import encode_inputs
from factory.recipe.training import TeacherSettings
from factory.runtime import distributed as processes
from factory.runtime import tracking
from factory.runtime.progress import bar
from factory.teacher.batches import sharing_trainer
from factory.teacher.class_weights import class_weights


def fine_tune(
    directory: Path,
    model: Any,
    tokenizer: Any,
    settings: TeacherSettings,
    dataset: Dataset,
    max_length: int,
    device: str,
) -> None:
    """Train `model` in place on the train split; an interrupted run continues from its last epoch.

    The last weights are kept: nothing is selected on dev, which scores the teacher afterwards.
    Several processes share the rows of each batch.
    """
    from transformers import DataCollatorWithPadding, Trainer

    checkpoints = directory / "checkpoints"
    arguments = training_arguments(checkpoints, settings, device)
    # other architectures may hold weights that their forward pass leaves out
    arguments.ddp_find_unused_parameters = model.config.model_type != "bert"
    label_weights = _label_weights(dataset) if settings.class_weights == "balanced" else None
    alone = processes.current().count == 1
    trainer = (Trainer if alone else sharing_trainer(Trainer, label_weights))(
        model=model,
        args=arguments,
        train_dataset=_trainer_rows(model, tokenizer, dataset, max_length),
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        compute_loss_func=None if label_weights is None else _weighted_loss(label_weights),
    )
    train_to_the_end(trainer, checkpoints, "teacher")


def training_arguments(checkpoints: Path, settings: TeacherSettings, device: str) -> Any:
    """Settings of the Trainer, with a checkpoint after every epoch."""
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_ratio=settings.warmup,
        weight_decay=settings.weight_decay,
        seed=settings.seed,
        group_by_length=True,
        save_strategy="epoch",
        save_total_limit=1,
        **tracking.trainer_arguments(),
        disable_tqdm=True,
        use_cpu=device == "cpu",
        bf16=device.startswith("cuda"),
        tf32=True if device.startswith("cuda") else None,
        dataloader_pin_memory=device.startswith("cuda"),
        ddp_find_unused_parameters=False,
    )


def train_to_the_end(trainer: Any, checkpoints: Path, description: str) -> None:
    """Train under our own bar, from the last complete checkpoint on where there is one."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    resume_from = processes.from_first(lambda: last_complete_checkpoint(checkpoints))
    with bar(description, 0, "step") as progress:
        trainer.add_callback(_bar_callback(progress.handle))
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    processes.wait_for_all()


def last_complete_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint whose state file, which is written last, can be read.

    Others are removed: a process killed while saving leaves one that would break the next start.
    """
    complete = []
    for checkpoint in directory.glob("checkpoint-*"):
        try:
            state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
            complete.append((int(state["global_step"]), checkpoint))
        except (OSError, ValueError, KeyError):
            shutil.rmtree(checkpoint, ignore_errors=True)
    return max(complete)[1] if complete else None


def _trainer_rows(
    model: Any, tokenizer: Any, dataset: Dataset, max_length: int
) -> list[dict[str, Any]]:
    encoded = encode_inputs(tokenizer, dataset.train.inputs(), max_length)
    targets: list[Any] = list(dataset.train.targets)
    if dataset.task == "multilabel":  # a 0 or 1 per label, as numbers that BCE can be taken of
        applies = multi_hot(dataset.train, len(dataset.labels))
        targets = applies.astype(float).tolist()
    rows: list[dict[str, Any]] = [
        {"input_ids": ids.tolist(), "labels": target}
        for ids, target in zip(encoded.input_ids, targets, strict=True)
    ]
    if takes_token_types(model):
        for row, types in zip(rows, encoded.token_type_ids, strict=True):
            row["token_type_ids"] = types.tolist()
    return rows


def _label_weights(dataset: Dataset) -> Any:
    import torch

    return torch.from_numpy(class_weights(dataset.train.targets, len(dataset.labels)))


def _weighted_loss(weights: Any) -> Callable[..., Any]:
    """Cross entropy with each row times its class's weight, averaged over the batch's rows."""
    from torch.nn.functional import cross_entropy

    def loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        of_row = weights.to(labels.device)[labels]
        return (of_row * cross_entropy(outputs.logits, labels, reduction="none")).mean()

    return loss


def _bar_callback(handle: Any) -> Any:
    from transformers import TrainerCallback

    class BarCallback(TrainerCallback):  # type: ignore[misc]
        """Moves our bar with the trainer's steps."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            handle.reset(total=state.max_steps)
            handle.update(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            handle.update(state.global_step - handle.n)

    return BarCallback()
