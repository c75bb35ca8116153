"""Load classifiers in torch, pick their device, and turn texts into logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from factory.errors import first_line
from factory.models.encoding import Batch, collate, encode_inputs, sorted_batches
from factory.models.source import ModelSource
from factory.runtime.progress import bar

if TYPE_CHECKING:
    import torch

INFERENCE_BATCH_SIZE = 64
CHUNK_ROWS = 512


class Classifier(Protocol):
    """Anything that can be scored: teacher, student, ONNX file, bundle."""

    def logits(self, inputs: Sequence[str] | Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Raw outputs in input order: (inputs, labels)."""
        ...


@dataclass(frozen=True, slots=True)
class TorchClassifier:
    """A transformers sequence classifier in eval mode."""

    model: Any
    tokenizer: Any
    max_length: int
    device: str = "cpu"

    def logits(self, inputs: Sequence[str] | Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Raw outputs in input order: (inputs, labels)."""
        import torch

        self.model.eval()
        rows = encode_inputs(self.tokenizer, inputs, self.max_length)
        result = np.empty((len(rows), self.model.config.num_labels), dtype=np.float32)
        with torch.inference_mode():
            for positions in sorted_batches(rows.lengths, INFERENCE_BATCH_SIZE):
                batch = collate(rows, positions, self.device)
                result[positions] = forward_logits(self.model, batch).cpu().numpy()
        return result


def logits_with_bar(
    classifier: Classifier,
    inputs: Sequence[str] | Sequence[tuple[str, str]],
    description: str,
) -> NDArray[np.float32]:
    """Raw outputs of many inputs, computed in chunks with a progress bar: (inputs, labels)."""
    results = []
    with bar(description, len(inputs), "row") as progress:
        for start in range(0, max(1, len(inputs)), CHUNK_ROWS):  # no inputs: (0, labels)
            chunk = inputs[start : start + CHUNK_ROWS]
            results.append(classifier.logits(chunk))
            progress.advance(len(chunk))
    return np.concatenate(results)


def forward_logits(model: Any, batch: Batch) -> torch.Tensor:
    """Logits of one padded batch in float32: (batch, labels)."""
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if takes_token_types(model):
        inputs["token_type_ids"] = batch.token_type_ids
    logits: torch.Tensor = model(**inputs).logits.float()
    return logits


def takes_token_types(model: Any) -> bool:
    """Whether token types mark the two texts of a pair for this model, as for BERT."""
    return getattr(model.config, "type_vocab_size", 0) > 1


def longest_input(model: Any) -> int | None:
    """The maximum number of tokens of a model; None if its configuration sets no limit."""
    import torch

    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is None or positions < 1:
        return None
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            # RoBERTa and its relatives number positions after the padding position
            skipped = 0 if module.padding_idx is None else module.padding_idx + 1
            return int(positions) - skipped
    return int(positions)


def load_torch_classifier(directory: Path, max_length: int, device: str = "cpu") -> TorchClassifier:
    """Open a saved sequence classifier with its tokenizer."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(directory).to(device)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    return TorchClassifier(model, tokenizer, max_length, device)


class UnloadableError(Exception):
    """The checkpoint cannot be loaded; the message is the library's first line."""


def load_bert_classifier(source: ModelSource, config: Any) -> tuple[Any, set[str]]:
    """A `BertForSequenceClassification` and the names of its newly initialized weights.

    Weights that the checkpoint lacks or has in another shape are newly initialized.

    Raises:
        UnloadableError: no such checkpoint, damaged files, or a failed download.
    """
    from safetensors import SafetensorError
    from transformers import BertForSequenceClassification

    try:
        model, loading = BertForSequenceClassification.from_pretrained(
            source.location,
            revision=source.revision,
            config=config,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UnloadableError(first_line(error)) from error
    return model, new_weights(loading)


def new_weights(loading: Mapping[str, Any]) -> set[str]:
    """Names of the weights that a checkpoint lacks or has in another shape.

    Args:
        loading: the loading info of `from_pretrained`.
    """
    # transformers 5 reports a mismatch as (name, shape, shape)
    mismatched = (
        one if isinstance(one, str) else str(one[0]) for one in loading["mismatched_keys"]
    )
    return {*loading["missing_keys"], *mismatched}
