"""Words of a text by character offsets, and which of them may be replaced."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

APOSTROPHES = ("'", "\u2019")
# What is left of "it's", "we're", "I'll", "I've", "don't", "I'd", "I'm" behind the apostrophe.
CLITICS = frozenset({"s", "re", "ll", "ve", "t", "d", "m"})
_CONTINUATION = "##"


@dataclass(frozen=True, slots=True)
class Word:
    """One word, number or mark of a text, as BERT's basic tokenization finds it.

    Args:
        start, end: its characters [start, end).
        first_piece, end_piece: its pieces [first, end) among the text's pieces.
        normal: its spelling in the vocabulary, lower case and without accents where that is so.
        single: whether it is one piece of the vocabulary.
        replaceable: whether it is made of letters and is no stop word.
    """

    start: int
    end: int
    first_piece: int
    end_piece: int
    normal: str
    single: bool
    replaceable: bool


@dataclass(frozen=True, slots=True)
class SplitText:
    """A text, all its words, and its pieces without special tokens."""

    text: str
    words: list[Word]
    input_ids: list[int]

    def surface(self, place: int) -> str:
        """The characters of one word."""
        return self.text[self.words[place].start : self.words[place].end]


class WordSplitter:
    """Splits texts with a tokenizer's own normalizer and pre-tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        """Take a fast tokenizer; the truncation and padding set in it stay as they are."""
        self._backend = _basic_tokenizer(tokenizer.backend_tokenizer)
        self._unknown: str = self._backend.model.unk_token

    def split(self, texts: Sequence[str]) -> list[SplitText]:
        """The words of each text; everything else is blanks or invisible."""
        encodings = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return [
            SplitText(text, self._words(text, encoding), encoding.ids)
            for text, encoding in zip(texts, encodings, strict=True)
        ]

    def pieces(self, text: str) -> list[int]:
        """The ids of a text's pieces."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def _words(self, text: str, encoding: Any) -> list[Word]:
        tokens = encoding.tokens
        spans = list(_spans(text, encoding))
        surfaces = [text[start:end] for start, end, _, _ in spans]
        words = []
        for place, (start, end, first, last) in enumerate(spans):
            unknown = self._unknown in tokens[first:last]
            surface = surfaces[place]
            normal = surface.lower() if unknown else _spelling(tokens[first:last])
            replaceable = (
                is_word(surface)
                and surface.lower() not in stop_words()
                and normal not in stop_words()
                and not _contracted(surfaces, spans, place)
            )
            single = last - first == 1 and not unknown
            words.append(Word(start, end, first, last, normal, single, replaceable))
        return words


def is_word(text: str) -> bool:
    """Whether a text is made of letters, marks that combine with them included.

    Without the marks no word with a vowel sign would be one in the scripts of India, nor any
    accented word in decomposed form.
    """
    if text.isalpha():
        return True
    return text[:1].isalpha() and all(
        letter.isalpha() or unicodedata.category(letter).startswith("M") for letter in text
    )


@lru_cache(maxsize=1)
def stop_words() -> frozenset[str]:
    """English words that carry grammar, not content: scikit-learn's list."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS)


def visible_ends(tokenizer: Any, columns: Sequence[list[str]], max_length: int) -> list[list[int]]:
    """For each column, where each row's text ends for a model that reads `max_length` tokens.

    Args:
        columns: the texts of all rows, and their pairs if there are pairs.

    Returns:
        Per column one number of characters per row.
    """
    encoded = tokenizer(*columns, truncation=True, max_length=max_length, padding=False)
    ends = []
    for side, texts in enumerate(columns):
        ends.append(
            [
                _visible_end(encoding, side) if encoding.overflowing else len(text)
                for text, encoding in zip(texts, encoded.encodings, strict=True)
            ]
        )
    return ends


def _visible_end(encoding: Any, side: int) -> int:
    ends = [
        end
        for (_, end), owner in zip(encoding.offsets, encoding.sequence_ids, strict=True)
        if owner == side
    ]
    return max(ends, default=0)


def _basic_tokenizer(backend: Any) -> Any:
    """A tokenizer of our own that splits as BERT does.

    One with WordPieces does so itself. Others (byte-level, SentencePiece) glue blanks or commas
    to words, so for them plain basic tokenization stands in; it knows no word's pieces.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    if isinstance(backend.model, models.WordPiece):
        own = Tokenizer.from_str(backend.to_str())
        own.no_truncation()
        own.no_padding()
        return own
    plain = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    plain.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    plain.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return plain


def _spans(text: str, encoding: Any) -> Iterator[tuple[int, int, int, int]]:
    """Characters and pieces of each word, in order and without overlap."""
    owners, offsets = encoding.word_ids, encoding.offsets
    bounds = [piece for piece in range(len(owners)) if piece == 0 or _begins(owners, piece)]
    bounds.append(len(owners))
    reached = 0
    for first, last in pairwise(bounds):
        start = max(reached, offsets[first][0])
        end = max(start, offsets[last - 1][1])
        # accents that the normalizer took off the last letter belong to the word
        while end < len(text) and unicodedata.category(text[end]).startswith("M"):
            end += 1
        reached = end
        yield start, end, first, last


def _begins(owners: list[int | None], piece: int) -> bool:
    return owners[piece] != owners[piece - 1]


def _spelling(tokens: list[str]) -> str:
    return "".join(
        token.removeprefix(_CONTINUATION) if place else token for place, token in enumerate(tokens)
    )


def _contracted(surfaces: list[str], spans: list[tuple[int, int, int, int]], place: int) -> bool:
    """Whether a word is part of "it's" or "don't": behind the apostrophe, or an -n before 't."""

    def touches(left: int) -> bool:
        return spans[left][1] == spans[left + 1][0]

    word = surfaces[place].lower()
    if word in CLITICS and place >= 1 and surfaces[place - 1] in APOSTROPHES:
        return touches(place - 1)
    return (
        word.endswith("n")
        and place + 2 < len(surfaces)
        and surfaces[place + 1] in APOSTROPHES
        and surfaces[place + 2].lower() == "t"
        and touches(place)
        and touches(place + 1)
    )
