"""Texts to token ids, exactly as transformers' fast tokenizer does it, without transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from tokenizers import Tokenizer  # type: ignore[import-untyped, unused-ignore] # untyped in 0.22

from serving.errors import BundleError, InputError

Inputs = Sequence[str] | Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Encoded:
    """One input as token ids, not padded; `truncated` tells that tokens were cut off."""

    input_ids: list[int]
    token_type_ids: list[int]
    truncated: bool

    def __len__(self) -> int:
        """Tokens, special ones included."""
        return len(self.input_ids)


class Piece(msgspec.Struct, frozen=True):
    """One piece, and the characters it stands for: `start` to `end` of text 0 or, of a pair, 1."""

    piece: str
    text: int
    start: int
    end: int


class TextTokenizer:
    """A tokenizer.json with our truncation and no padding, whatever the file asks for.

    Files found in the wild pad every text to 128 tokens; honouring that makes short texts
    several times slower and changes what a dynamically quantized model answers.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int) -> None:
        self.pad_id = _pad_id(tokenizer)
        self.pieces = tokenizer.get_vocab_size()
        self.max_length = max_length
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length, stride=0, strategy="longest_first")
        self._tokenizer = tokenizer

    @classmethod
    def load(cls, path: Path, max_length: int, *, text_pair: bool = False) -> TextTokenizer:
        """Read a tokenizer.json.

        Raises:
            BundleError: not a tokenizer, or max_length leaves no room for text.
        """
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise BundleError(
                path, [f"not a tokenizer ({error})"], "build the bundle again"
            ) from error
        special = tokenizer.num_special_tokens_to_add(text_pair)
        if max_length <= special:
            raise BundleError(
                path,
                [f"max_length {max_length} leaves no room beside {special} special tokens"],
                "build the bundle with a larger max_length",
            )
        return cls(tokenizer, max_length)

    def encode(self, inputs: Inputs) -> list[Encoded]:
        """Encode texts, or pairs of texts, in order.

        Raises:
            InputError: a text that has no UTF-8 form.
        """
        try:
            encodings = self._tokenizer.encode_batch_fast(list(inputs))
        except TypeError as error:
            # types are checked by the predictor; what is left are lone surrogates
            raise InputError(
                "a text has characters without UTF-8 form (lone surrogates)"
            ) from error
        return [
            Encoded(encoding.ids, encoding.type_ids, bool(encoding.overflowing))
            for encoding in encodings
        ]

    def cut(self, given: str | tuple[str, str]) -> tuple[list[Piece], bool]:
        """The pieces of one input without the special ones, and whether some were cut off.

        Raises:
            InputError: a text that has no UTF-8 form.
        """
        try:
            encoding = self._tokenizer.encode_batch([given])[0]
        except TypeError as error:
            raise InputError(
                "a text has characters without UTF-8 form (lone surrogates)"
            ) from error
        rows = zip(encoding.tokens, encoding.sequence_ids, encoding.offsets, strict=True)
        pieces = [Piece(token, text, *span) for token, text, span in rows if text is not None]
        return pieces, bool(encoding.overflowing)


def _pad_id(tokenizer: Tokenizer) -> int:
    """The id that fills a row; any id would do, as the attention mask hides it."""
    if tokenizer.padding is not None:
        return int(tokenizer.padding["pad_id"])
    return tokenizer.token_to_id("[PAD]") or 0
