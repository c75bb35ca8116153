"""Loading a BERT classifier's weights and knowing which of them the checkpoint did not have."""

from __future__ import annotations

from typing import Any

from factory.errors import first_line
from factory.models.source import ModelSource


class UnloadableError(Exception):
    """The checkpoint cannot be loaded; the message is the library's first line."""


def load_classifier(source: ModelSource, config: Any) -> tuple[Any, set[str]]:
    """A `BertForSequenceClassification` and the names of its weights that are newly drawn.

    Weights the checkpoint lacks or has in another shape are new.

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
    return model, {*loading["missing_keys"], *map(_name, loading["mismatched_keys"])}


def _name(mismatch: str | tuple[Any, ...]) -> str:
    """The weight's name; transformers 5 tells the two shapes beside it."""
    return mismatch if isinstance(mismatch, str) else str(mismatch[0])
