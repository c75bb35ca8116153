"""The words of a text by character offsets, and which of them may be replaced."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

APOSTROPHES = ("'", "\u2019")
# Endings after the apostrophe in "it's", "we're", "I'll", "I've", "don't", "I'd", "I'm".
CLITICS = frozenset({"s", "re", "ll", "ve", "t", "d", "m"})
CONTINUATION = "##"


@dataclass(frozen=True, slots=True)
class Word:
    """One word, number or punctuation mark of a text, as BERT's basic tokenization finds it.

    Args:
        start, end: its characters [start, end).
        first_token, end_token: its tokens [first, end) among the text's tokens.
        normal: its spelling in the vocabulary, for example in lower case and without accents.
        single: whether it is one token of the vocabulary.
        replaceable: whether it consists of letters and is not a stop word.
    """

    start: int
    end: int
    first_token: int
    end_token: int
    normal: str
    single: bool
    replaceable: bool


@dataclass(frozen=True, slots=True)
class SplitText:
    """A text, all its words, and its token ids without special tokens."""

    text: str
    words: list[Word]
    input_ids: list[int]

    def surface(self, place: int) -> str:
        """The characters of one word."""
        return self.text[self.words[place].start : self.words[place].end]


class WordSplitter:
    """Splits texts with a tokenizer's own normalizer and pre-tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        """Take a fast tokenizer; its truncation and padding settings are not changed.

        A WordPiece tokenizer splits as BERT does and is copied. Others (byte-level, SentencePiece)
        attach spaces or commas to words, so basic tokenization replaces them; it has no token ids.
        """
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

        original = tokenizer.backend_tokenizer
        if isinstance(original.model, models.WordPiece):
            self._backend = Tokenizer.from_str(original.to_str())
            self._backend.no_truncation()
            self._backend.no_padding()
        else:
            self._backend = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
            self._backend.normalizer = normalizers.BertNormalizer(
                lowercase=False, strip_accents=False
            )
            self._backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._unknown: str = self._backend.model.unk_token

    def split(self, texts: Sequence[str]) -> list[SplitText]:
        """The words of each text; everything else is white space or invisible."""
        encodings = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return [
            SplitText(text, self._words(text, encoding), encoding.ids)
            for text, encoding in zip(texts, encodings, strict=True)
        ]

    def token_ids(self, text: str) -> list[int]:
        """The token ids of a text."""
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
            continued = (token.removeprefix(CONTINUATION) for token in tokens[first + 1 : last])
            normal = surface.lower() if unknown else "".join([tokens[first], *continued])
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
    """Whether a text consists of letters, combining marks included.

    Words with vowel signs in the scripts of India contain such marks, and so do accented words in
    decomposed form.
    """
    if text.isalpha():
        return True
    return text[:1].isalpha() and all(
        letter.isalpha() or unicodedata.category(letter).startswith("M") for letter in text
    )


@lru_cache(maxsize=1)
def stop_words() -> frozenset[str]:
    """English function words: scikit-learn's list."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS)


def visible_ends(tokenizer: Any, columns: Sequence[list[str]], max_length: int) -> list[list[int]]:
    """The number of characters of each text that a model with `max_length` tokens sees.

    Args:
        columns: the texts of all rows; for pairs also the second texts.

    Returns:
        Per column one number per row.
    """
    encoded = tokenizer(*columns, truncation=True, max_length=max_length, padding=False)

    def visible_end(text: str, encoding: Any, side: int) -> int:
        if not encoding.overflowing:
            return len(text)
        tokens = zip(encoding.offsets, encoding.sequence_ids, strict=True)
        return max((end for (_, end), owner in tokens if owner == side), default=0)

    return [
        [visible_end(*pair, side) for pair in zip(texts, encoded.encodings, strict=True)]
        for side, texts in enumerate(columns)
    ]


def _spans(text: str, encoding: Any) -> Iterator[tuple[int, int, int, int]]:
    """Characters and tokens of each word, in order and without overlap."""
    owners, offsets = encoding.word_ids, encoding.offsets
    begins = [token for token in range(1, len(owners)) if owners[token] != owners[token - 1]]
    bounds = [0, *begins, len(owners)] if owners else []
    reached = 0
    for first, last in pairwise(bounds):
        start = max(reached, offsets[first][0])
        end = max(start, offsets[last - 1][1])
        # accents that the normalizer removed from the last letter belong to the word
        while end < len(text) and unicodedata.category(text[end]).startswith("M"):
            end += 1
        reached = end
        yield start, end, first, last


def _contracted(surfaces: list[str], spans: list[tuple[int, int, int, int]], place: int) -> bool:
    """Whether a word is part of "it's" or "don't": after the apostrophe, or an -n before 't."""

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
