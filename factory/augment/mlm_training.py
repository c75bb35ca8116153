"""A masked language model trained on the recipe's own text, for a BERT that has no such head."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from factory.augment.mlm_model import open_bert
from factory.errors import DataError, TrainingError
from factory.models.classifier import longest_input
from factory.models.encoding import (
    EncodedRows,
    encode_inputs,
    save_tokenizer,
    select_rows,
    sorted_batches,
)
from factory.models.source import ModelSource
from factory.recipe.recipe import MlmSettings
from factory.runtime import distributed as processes
from factory.teacher.batches import WEIGHT, sharing_trainer
from factory.teacher.fine_tune import train_to_the_end, training_arguments

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100  # the library's label of a token that was not masked
HELD_OUT_SHARE = 0.05
MOST_HELD_OUT = 1000
SCORING_BATCH = 64
HELD_OUT_SEED = 1  # the library takes 0 for none
LEAST_MASKED = 0.01  # below one token among a hundred processes
# Above twice the largest hidden value, so that GELU passes it on as it is.
HEAD_SHIFT = 10.0


def train_mlm(
    directory: Path,
    source: ModelSource,
    settings: MlmSettings,
    texts: Sequence[str],
    max_length: int,
    device: str,
) -> dict[str, Any]:
    """Train a BERT to fill in masked words of these texts, and save it as `directory`/model.

    A checkpoint without a head gets one (`start_head`); one with a head goes on from it. Texts are
    cut to `max_length` tokens, or to what the model reads. One in twenty is held out and scored.
    An interrupted run continues from its last epoch; several processes share each batch's rows.

    Args:
        texts: each by itself; the two texts of a pair are two.

    Returns:
        Facts: texts, tokens, whether the head is new, and on the held-out texts the loss and
        accuracy of guessing masked tokens: always the most frequent one's (`unigram`), `before`
        and `after`. Of several processes the first's, which saves the model.

    Raises:
        RecipeError: the model cannot be loaded, or is no BERT with a fast tokenizer.
        DataError: fewer than two different texts.
        TrainingError: the loss is no number any more.
    """
    import torch

    torch.manual_seed(settings.seed)
    key = "mlm.model" if settings.model else "teacher.model"
    model, tokenizer, missing = open_bert(source, key)
    longest = min(max_length, longest_input(model) or max_length)
    train, held_out = _split(_encoded(tokenizer, texts, longest), settings.seed)
    counts = token_counts(train, tokenizer.all_special_ids, model.config.vocab_size)
    if missing:
        start_head(model, counts)
    model.to(device)
    masked = _masked_once(held_out, tokenizer, settings)
    scores = {"unigram": unigram_scores(counts, masked), "before": masked_scores(model, masked)}
    _train(directory / "checkpoints", model, tokenizer, settings, train, device)
    if not processes.current().first:
        return {}
    scores["after"] = masked_scores(model, masked)
    if scores["after"]["loss"] is not None and not np.isfinite(scores["after"]["loss"]):
        raise TrainingError(
            "the masked language model's loss is no number; lower mlm.learning_rate"
        )
    model.eval().save_pretrained(directory / "model")
    save_tokenizer(tokenizer, directory / "model")
    shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    return {
        "source": source.identity,
        "texts": len(train),
        "tokens": int(train.lengths.sum()),
        "new_head": bool(missing),
        "held_out": {"texts": len(held_out), "masked": masked.count, **scores},
    }


def start_head(model: Any, counts: NDArray[np.int64]) -> None:
    """Give a BERT a head whose guesses begin near the words that its last layer is alike to.

    The transform passes the hidden states on as they are: an identity, shifted to where GELU is
    one too, and the LayerNorm takes the shift away again. The output bias is the logarithm of each
    token's frequency.

    Args:
        counts: how often each token stands in the text, (vocabulary,).
    """
    import torch

    model.config.tie_word_embeddings = True
    model.tie_weights()
    transform = model.cls.predictions.transform
    with torch.no_grad():
        torch.nn.init.eye_(transform.dense.weight)
        transform.dense.bias.fill_(HEAD_SHIFT)
        transform.LayerNorm.weight.fill_(1.0)
        transform.LayerNorm.bias.zero_()
        model.cls.predictions.bias.copy_(torch.from_numpy(_log_frequencies(counts)))


def token_counts(rows: EncodedRows, special_ids: Sequence[int], size: int) -> NDArray[np.int64]:
    """How often each token stands in the rows, special ones left out: (size,)."""
    counts = np.zeros(size, dtype=np.int64)
    for ids in rows.input_ids:
        np.add.at(counts, ids, 1)
    counts[list(special_ids)] = 0
    return counts


def unigram_scores(counts: NDArray[np.int64], masked: Masked) -> dict[str, float | None]:
    """Loss and accuracy of guessing by frequency alone, whatever stands around."""
    wanted = [batch["labels"][batch["labels"] != IGNORED].numpy() for batch in masked.batches]
    log_shares = _log_frequencies(counts)
    losses = [-float(log_shares[ids].sum()) for ids in wanted]
    right = [int((ids == counts.argmax()).sum()) for ids in wanted]
    return _scores(sum(losses), sum(right), masked.count)


def masked_scores(model: Any, masked: Masked) -> dict[str, float | None]:
    """Mean loss and accuracy of the model's guesses at the masked tokens."""
    import torch

    model.eval()
    loss, right = 0.0, 0
    with torch.inference_mode():
        for batch in masked.batches:
            place = {name: values.to(model.device) for name, values in batch.items()}
            labels = place.pop("labels")
            logits = masked_logits(model, model.cls, place, labels)
            wanted = labels[labels != IGNORED]
            loss += float(torch.nn.functional.cross_entropy(logits, wanted, reduction="sum"))
            right += int((logits.argmax(dim=-1) == wanted).sum())
    return _scores(loss, right, masked.count)


def masked_logits(model: Any, head: Any, inputs: dict[str, Any], labels: Tensor) -> Tensor:
    """The guesses at the labelled places alone, in float32: (masked tokens, vocabulary).

    The head costs as much as the layers below it, and six in seven of its rows would be dropped.

    Args:
        model: called as a whole, because it may be wrapped for several processes.
        head: the part of it that is given the hidden states.
    """
    hook = head.register_forward_pre_hook(lambda _, hidden: (hidden[0][labels != IGNORED],))
    try:
        logits: Tensor = model(**inputs).logits.float()
    finally:
        hook.remove()
    return logits


@dataclass(frozen=True, slots=True)
class Masked:
    """Batches of texts with tokens masked once and for all, and how many tokens that are."""

    batches: list[dict[str, Tensor]]
    count: int


class MaskableRows:
    """Rows as the library's collator for masked language models takes them."""

    def __init__(self, rows: EncodedRows, special_ids: Sequence[int]) -> None:
        self.rows = rows
        self.special_ids = np.array(special_ids, dtype=np.int32)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> dict[str, Any]:
        ids = self.rows.input_ids[position]
        special = np.isin(ids, self.special_ids).astype(int).tolist()
        return {"input_ids": ids.tolist(), "special_tokens_mask": special}


def _encoded(tokenizer: Any, texts: Sequence[str], max_length: int) -> EncodedRows:
    different = [text for text in dict.fromkeys(texts) if text.strip()]
    if len(different) < 2:
        raise DataError("mlm", ["there are not two different texts to train on and to score with"])
    return encode_inputs(tokenizer, different, max_length)


def _split(rows: EncodedRows, seed: int) -> tuple[EncodedRows, EncodedRows]:
    """The rows to train on and those held out, drawn by the seed."""
    order = np.random.default_rng(seed).permutation(len(rows))
    held_out = min(MOST_HELD_OUT, max(1, round(HELD_OUT_SHARE * len(rows))))
    return (
        select_rows(rows, np.sort(order[held_out:])),
        select_rows(rows, np.sort(order[:held_out])),
    )


def _masked_once(rows: EncodedRows, tokenizer: Any, settings: MlmSettings) -> Masked:
    """Every chosen token replaced by the mask, none left as it is and none by another token."""
    from transformers import DataCollatorForLanguageModeling

    collator = DataCollatorForLanguageModeling(
        tokenizer,
        mlm_probability=settings.mask_probability,
        mask_replace_prob=1.0,
        random_replace_prob=0.0,
        seed=HELD_OUT_SEED,
    )
    maskable = MaskableRows(rows, tokenizer.all_special_ids)
    batches = [
        dict(collator([maskable[int(position)] for position in positions]))
        for positions in sorted_batches(rows.lengths, SCORING_BATCH)
    ]
    return Masked(batches, sum(int((batch["labels"] != IGNORED).sum()) for batch in batches))


def _train(
    checkpoints: Path,
    model: Any,
    tokenizer: Any,
    settings: MlmSettings,
    rows: EncodedRows,
    device: str,
) -> None:
    from transformers import DataCollatorForLanguageModeling

    arguments = training_arguments(checkpoints, settings, device)
    arguments.remove_unused_columns = False  # the collator takes more than the model does
    trainer = _masking_trainer()(
        model=model,
        args=arguments,
        train_dataset=MaskableRows(rows, tokenizer.all_special_ids),
        # without a seed of its own it masks by torch's random state, which checkpoints restore
        data_collator=DataCollatorForLanguageModeling(
            tokenizer, mlm_probability=settings.mask_probability
        ),
        processing_class=tokenizer,
    )
    train_to_the_end(trainer, checkpoints, "masked language model")


def _masking_trainer() -> Any:
    from torch.nn.functional import cross_entropy
    from transformers import Trainer

    alone = processes.current().count == 1

    class MaskingTrainer(Trainer if alone else sharing_trainer(Trainer, None)):  # type: ignore[misc]
        """Takes the mean over the masked tokens of a batch, whichever process has them."""

        def compute_loss(self, model: Any, inputs: dict[str, Any], **_: Any) -> Any:
            """The sum of this process's losses over each process's average share of tokens."""
            labels, weights = inputs.pop("labels"), inputs.pop(WEIGHT, None)
            if weights is not None:  # a process left without a row got one that does not count
                labels = labels.masked_fill(weights[:, None] == 0, IGNORED)
            logits = masked_logits(model, self.model.cls, inputs, labels)
            wanted = labels[labels != IGNORED]
            masked = processes.averages([(labels != IGNORED).sum().float()])[0]
            # a few short texts may have no masked token; the mean of nothing is no number
            return cross_entropy(logits, wanted, reduction="sum") / masked.clamp(min=LEAST_MASKED)

    return MaskingTrainer


def _log_frequencies(counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Logarithm of each token's share, as if each had been seen once more: (vocabulary,)."""
    seen = counts + 1.0
    shares: NDArray[np.float32] = np.log(seen / seen.sum()).astype(np.float32)
    return shares


def _scores(loss: float, right: int, count: int) -> dict[str, float | None]:
    if count == 0:
        return {"loss": None, "accuracy": None}
    return {"loss": loss / count, "accuracy": right / count}
