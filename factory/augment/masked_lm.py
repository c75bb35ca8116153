"""A masked language model: opened, checked, and run in batches to guess hidden words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from factory.augment.keyed_rng import text_key
from factory.augment.words import CONTINUATION, Word, is_word
from factory.data.messages import first_few
from factory.errors import FactoryError, RecipeError, first_line
from factory.models.classifier import longest_input
from factory.models.source import ModelSource
from factory.runtime.progress import say

if TYPE_CHECKING:
    import torch

KEY = "augment.mlm"
HEAD = "cls.predictions."
# Tokens of a batch, padding included. A CPU gains nothing from more; these keep a GPU busy.
CPU_BATCH_TOKENS = 2**12
CUDA_BATCH_TOKENS = 2**16


@dataclass(frozen=True, slots=True)
class MaskedLanguageModel:
    """A BertForMaskedLM in eval mode on `device`, and its fast tokenizer."""

    model: Any
    tokenizer: Any
    device: str


def load_masked_lm(source: ModelSource, device: str) -> MaskedLanguageModel:
    """Open the BERT that `augment.mlm` names, with its masked-language-model head.

    Raises:
        RecipeError: it cannot be found, is not a BERT, lacks the head or other weights, or has no
            fast tokenizer with a mask token.
    """
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoTokenizer, BertForMaskedLM

    try:
        config = AutoConfig.from_pretrained(source.location, revision=source.revision)
        if config.model_type != "bert":
            problem = f"{source.location} is a {config.model_type} model; name a BERT model"
            raise RecipeError(KEY, [problem])
        tokenizer = AutoTokenizer.from_pretrained(source.location, revision=source.revision)
        config.is_decoder = False
        model, loading = BertForMaskedLM.from_pretrained(
            source.location, config=config, output_loading_info=True, revision=source.revision
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        problem = (
            f"cannot load {source.location}: {first_line(error)}. Name a hub id (needs the network "
            "once), a folder with config.json, weights and tokenizer.json, or package:NAME"
        )
        raise RecipeError(KEY, [problem]) from error
    if (lack := _lack(tokenizer, config, loading["missing_keys"])) is not None:
        raise RecipeError(KEY, [f"{source.location} {lack}"])
    return MaskedLanguageModel(model.eval().to(device), tokenizer, device)


def _lack(tokenizer: Any, config: Any, missing_weights: Iterable[str]) -> str | None:
    """The reason why a model cannot propose words, as a predicate; None if it can."""
    if not tokenizer.is_fast:
        return "has no fast tokenizer (tokenizer.json), required to find words; name another model"
    for token in ("mask", "pad"):
        if getattr(tokenizer, f"{token}_token_id") is None:
            return f"has a tokenizer without a {token} token; name another model"
    if len(tokenizer) > config.vocab_size:
        return (
            f"has a tokenizer with {len(tokenizer):,} tokens but only {config.vocab_size:,} "
            "embeddings: they belong to different models; name another model"
        )
    # the decoder's bias is cls.predictions.bias, and its weights are usually the word embeddings
    elsewhere = {f"{HEAD}decoder.bias"}
    if config.tie_word_embeddings:
        elsewhere.add(f"{HEAD}decoder.weight")
    names = sorted(name for name in missing_weights if name not in elsewhere)
    body = [name for name in names if not name.startswith(HEAD)]
    if body:
        return f"is not a complete BERT: {first_few(body)} missing"
    if names:
        return (
            f"has no masked-language-model head ({first_few(names)} missing), "
            f"so it cannot propose words. Set {KEY} to a checkpoint that has one, such as "
            f"google-bert/bert-base-uncased, or remove {KEY}: the teacher's embeddings then "
            "propose words"
        )
    return None


@dataclass(frozen=True, slots=True)
class HiddenWords:
    """The input ids of a text, special tokens included, and the positions of its hidden words."""

    input_ids: list[int]
    positions: list[int]


class WordGuesser:
    """Computes the most probable words for hidden positions.

    Args:
        mlm: the model.
        max_length: the number of tokens of a text that the model reads, or its own limit if less.
        words: `letters` allows only words of letters; `all` also allows numbers and punctuation.
            Neither allows ## tokens, special tokens or unused tokens.

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
        # looked up once: the tokenizer's properties are slower than the rest of `hide`
        self._begin, self._end = tokenizer.cls_token_id, tokenizer.sep_token_id
        self._mask, self._pad = tokenizer.mask_token_id, tokenizer.pad_token_id
        self.vocabulary = [""] * mlm.model.config.vocab_size  # the tokenizer may have fewer ids
        for text, number in tokenizer.get_vocab().items():
            self.vocabulary[number] = text
        self.vocabulary_keys = np.array([text_key(text) for text in self.vocabulary], np.uint64)
        excluded = np.array(
            [
                not text
                or text.startswith((CONTINUATION, "[unused"))
                or (words == "letters" and not is_word(text))
                for text in self.vocabulary
            ]
        )
        excluded[tokenizer.all_special_ids] = True
        self._excluded = torch.from_numpy(excluded).to(mlm.device)
        self._allowed = int((~excluded).sum())

    def within(self, word: Word, shift: int = 0) -> bool:
        """Whether the model reads a word; `shift` tokens were added before it."""
        return word.end_token + shift <= self._limit - 2

    def hide(self, input_ids: Sequence[int], words: Sequence[Word], shift: int = 0) -> HiddenWords:
        """A text with some words, in their order, each replaced by one mask token."""
        ids, positions, reached = [self._begin], [], 0
        for word in words:
            ids += input_ids[reached : word.first_token + shift]
            positions.append(len(ids))
            ids.append(self._mask)
            reached = word.end_token + shift
        ids += input_ids[reached : reached + self._limit]
        return HiddenWords([*ids[: self._limit - 1], self._end], positions)

    def guess(self, texts: Sequence[HiddenWords], count: int) -> NDArray[np.int64]:
        """Ids of the most probable words for each hidden position.

        Returns:
            (hidden positions, count), in the order of the texts and of the positions in each;
            fewer than `count` columns if the vocabulary has fewer allowed words.

        Raises:
            FactoryError: a single text does not fit into memory.
        """
        import torch

        count = min(count, self._allowed)
        lengths = np.array([len(text.input_ids) for text in texts], dtype=np.int64)
        order = np.argsort(lengths, kind="stable")
        starts = np.cumsum([0, *(len(text.positions) for text in texts)])
        result = np.empty((int(starts[-1]), count), dtype=np.int64)
        # fetched after the last batch has started, so that the device never waits for this thread
        guesses: list[tuple[NDArray[np.int64], torch.Tensor]] = []
        done = 0
        while done < len(order):
            sorted_lengths = lengths[order[done:]]
            padded = sorted_lengths * np.arange(1, len(sorted_lengths) + 1)
            size = max(1, int(np.searchsorted(padded, self._batch_tokens, side="right")))
            batch = order[done : done + size]
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

    def _make_batches_smaller(
        self, batch: NDArray[np.int64], lengths: NDArray[np.int64], error: Exception
    ) -> None:
        import torch

        if len(batch) == 1:
            raise FactoryError(
                f"out of memory: {KEY} cannot process a single text on this device ({error}); "
                "lower data.max_length or augment on another device"
            ) from error
        self._batch_tokens = int(lengths[batch[-1]]) * (len(batch) // 2)
        say(f"out of memory: {KEY} now processes {self._batch_tokens} tokens per batch")
        if self._mlm.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _forward(self, texts: Sequence[HiddenWords], count: int) -> torch.Tensor:
        """Ids of the most probable words of a batch, on the device: (hidden positions, count)."""
        import torch

        model, device = self._mlm.model, self._mlm.device
        ids, mask, rows, columns = (
            torch.from_numpy(array).to(device, non_blocking=True)
            for array in _padded(texts, self._pad)
        )
        kind = torch.device(device).type
        with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, kind == "cuda"):
            hidden = model.bert(input_ids=ids, attention_mask=mask)[0]
            # the decoder is as wide as the vocabulary: compute it at hidden positions only
            logits = model.cls(hidden[rows, columns]).float()
            top = logits.masked_fill_(self._excluded, -torch.inf).topk(count, dim=1)
            indices: torch.Tensor = top.indices
            return indices


def _padded(texts: Sequence[HiddenWords], pad_id: int) -> tuple[NDArray[np.int64], ...]:
    """Ids and attention mask of a batch, and row and column of each hidden position."""
    lengths = [len(text.input_ids) for text in texts]
    ids = np.full((len(texts), max(lengths)), pad_id, dtype=np.int64)
    for row, text in enumerate(texts):
        ids[row, : lengths[row]] = text.input_ids
    mask = (np.arange(ids.shape[1]) < np.array(lengths)[:, None]).astype(np.int64)
    rows = np.repeat(np.arange(len(texts)), [len(text.positions) for text in texts])
    columns = np.array([place for text in texts for place in text.positions], dtype=np.int64)
    return ids, mask, rows, columns
