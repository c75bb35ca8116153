"""Likely words for hidden places of texts from a masked language model, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from factory.augment.draws import text_key
from factory.augment.words import Word, is_word
from factory.errors import FactoryError
from factory.models.classifier import longest_input
from factory.runtime.progress import say

if TYPE_CHECKING:
    import torch

    from factory.augment.mlm_model import MaskedLanguageModel

# Tokens of a batch, padding included. A CPU gains nothing from more; a GPU is busy with as many.
CPU_BATCH_TOKENS = 2**12
CUDA_BATCH_TOKENS = 2**16


@dataclass(frozen=True, slots=True)
class HiddenWords:
    """A text as the model reads it, special tokens included, and where its hidden words stand."""

    input_ids: list[int]
    positions: list[int]


class WordGuesser:
    """The most probable words for hidden places.

    Args:
        mlm: the model.
        max_length: tokens of a text the model is given; its own limit if that is less.
        words: `letters` keeps only what is a word in a text: letters, no continued piece, no
            special or unused token. `all` also keeps numbers and marks.

    Attributes:
        vocabulary: the text of each id.
        vocabulary_keys: (vocabulary,) key of each text.
    """

    def __init__(
        self, mlm: MaskedLanguageModel, max_length: int, words: Literal["letters", "all"]
    ) -> None:
        import torch

        self._mlm = mlm
        own_limit = longest_input(mlm.model)
        self._limit = max_length if own_limit is None else min(max_length, own_limit)
        on_cuda = mlm.device.startswith("cuda")
        self._batch_tokens = CUDA_BATCH_TOKENS if on_cuda else CPU_BATCH_TOKENS
        tokenizer = mlm.tokenizer
        # looked up once: asking the tokenizer takes longer than all the rest of hiding a word
        self._begin, self._end = tokenizer.cls_token_id, tokenizer.sep_token_id
        self._mask, self._pad = tokenizer.mask_token_id, tokenizer.pad_token_id
        size = mlm.model.config.vocab_size
        self.vocabulary = _vocabulary(tokenizer, size)
        self.vocabulary_keys = np.array([text_key(text) for text in self.vocabulary], np.uint64)
        excluded = np.array([not text for text in self.vocabulary])
        excluded |= [text.startswith("##") or _is_unused(text) for text in self.vocabulary]
        excluded[[number for number in tokenizer.all_special_ids if number < size]] = True
        if words == "letters":
            excluded |= [not is_word(text) for text in self.vocabulary]
        self._excluded = torch.from_numpy(excluded).to(mlm.device)
        self.allowed = int((~excluded).sum())

    def within(self, word: Word, shift: int = 0) -> bool:
        """Whether a word lies in what the model reads; `shift` pieces were added before it."""
        return word.end_piece + shift <= self._limit - 2

    def hide(self, input_ids: Sequence[int], words: Sequence[Word], shift: int = 0) -> HiddenWords:
        """A text with some words, in their order, each hidden by one mask."""
        ids, positions, reached = [self._begin], [], 0
        for word in words:
            ids += input_ids[reached : word.first_piece + shift]
            positions.append(len(ids))
            ids.append(self._mask)
            reached = word.end_piece + shift
        ids += input_ids[reached : reached + self._limit]
        return HiddenWords([*ids[: self._limit - 1], self._end], positions)

    def guess(self, texts: Sequence[HiddenWords], count: int) -> NDArray[np.int64]:
        """Ids of the most probable words for each hidden place.

        Returns:
            (hidden places, count), in the order of the texts and of the places in each; fewer
            than `count` where the vocabulary has not so many words.

        Raises:
            FactoryError: memory runs out on a single text.
        """
        import torch

        count = min(count, self.allowed)
        lengths = np.array([len(text.input_ids) for text in texts], dtype=np.int64)
        order = np.argsort(lengths, kind="stable")
        starts = np.cumsum([0, *(len(text.positions) for text in texts)])
        result = np.empty((int(starts[-1]), count), dtype=np.int64)
        # fetched after the last batch was started: the device never waits for this thread
        guesses: list[tuple[NDArray[np.int64], torch.Tensor]] = []
        done = 0
        while done < len(order):
            batch = order[done : done + self._fitting(lengths[order[done:]])]
            try:
                found = self._forward([texts[text] for text in batch], count)
            except torch.OutOfMemoryError as error:
                self._make_batches_smaller(batch, lengths, error)
                continue
            places = [np.arange(starts[text], starts[text + 1]) for text in batch]
            guesses.append((np.concatenate(places), found))
            done += len(batch)
        for rows, found in guesses:
            result[rows] = found.cpu().numpy()
        return result

    def _fitting(self, lengths: NDArray[np.int64]) -> int:
        """How many of the texts, shortest first, make a batch."""
        padded = lengths * np.arange(1, len(lengths) + 1)
        return max(1, int(np.searchsorted(padded, self._batch_tokens, side="right")))

    def _make_batches_smaller(
        self, batch: NDArray[np.int64], lengths: NDArray[np.int64], error: Exception
    ) -> None:
        import torch

        if len(batch) == 1:
            raise FactoryError(
                f"not even one text fits into the device's memory beside the mlm ({error}); "
                "lower data.max_length or augment on another device"
            ) from error
        self._batch_tokens = int(lengths[batch[-1]]) * (len(batch) // 2)
        say(f"out of memory: the mlm now reads {self._batch_tokens} tokens at once")
        if self._mlm.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _forward(self, texts: Sequence[HiddenWords], count: int) -> torch.Tensor:
        """Ids of the most probable words of one batch, on the device: (hidden places, count)."""
        import torch

        model, device = self._mlm.model, self._mlm.device
        ids, mask, rows, columns = (
            torch.from_numpy(array).to(device, non_blocking=True)
            for array in _padded(texts, self._pad)
        )
        kind = torch.device(device).type
        with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, kind == "cuda"):
            hidden = model.bert(input_ids=ids, attention_mask=mask)[0]
            # the decoder is as wide as the vocabulary: only hidden places go through it
            logits = model.cls(hidden[rows, columns]).float()
            top = logits.masked_fill_(self._excluded, -torch.inf).topk(count, dim=1)
            indices: torch.Tensor = top.indices
            return indices


def _padded(texts: Sequence[HiddenWords], pad_id: int) -> tuple[NDArray[np.int64], ...]:
    """Ids and attention mask of a batch, and row and column of each hidden place."""
    lengths = [len(text.input_ids) for text in texts]
    ids = np.full((len(texts), max(lengths)), pad_id, dtype=np.int64)
    for row, text in enumerate(texts):
        ids[row, : lengths[row]] = text.input_ids
    mask = (np.arange(ids.shape[1]) < np.array(lengths)[:, None]).astype(np.int64)
    rows = np.repeat(np.arange(len(texts)), [len(text.positions) for text in texts])
    columns = np.array([place for text in texts for place in text.positions], dtype=np.int64)
    return ids, mask, rows, columns


def _vocabulary(tokenizer: Any, size: int) -> list[str]:
    """The text of each id; empty where the model has more ids than the tokenizer."""
    texts = [""] * size
    for text, number in tokenizer.get_vocab().items():
        if number < size:
            texts[number] = text
    return texts


def _is_unused(text: str) -> bool:
    return text.startswith("[unused") and text.endswith("]")
