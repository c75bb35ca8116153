"""Mapping of every Unicode character by BERT's normalizer and pre-tokenizer, from the library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.errors import TextModelError

SURROGATES = range(0xD800, 0xE000)
BLOCK, SMALLER = 4096, 16  # characters asked about at once, and how much fewer then


class Kind(IntEnum):
    """How the pre-tokenizer treats a character."""

    BLANK = 0
    ALONE = 1  # a word of its own: punctuation, CJK
    LETTER = 2


# Characters with their kinds; the character of a blank is always " ".
Expansion = tuple[tuple[str, Kind], ...]
BLANK: Expansion = ((" ", Kind.BLANK),)


class CharacterMapping(IntEnum):
    """What a raw character is mapped to."""

    LETTER = 0  # itself, a letter
    REMOVED = 1
    ALONE = 2  # itself, a word of its own
    OTHER = 3  # something else, or more than one


@dataclass(frozen=True, slots=True)
class Characters:
    """The mapping of every code point.

    Args:
        others: expansions of the characters whose mapping is OTHER.
        sorts_marks: whether combining marks that stand together are put into an order. BERT's
            normalizer works character by character but for that: to strip accents it applies
            Unicode's NFD, then removes marks of category Mn, but a few others have an order too.

    Shapes:
        mappings: (0x110000,) a CharacterMapping per code point
    """

    mappings: NDArray[np.uint8]
    others: dict[str, Expansion]
    sorts_marks: bool

    def expansion(self, character: str) -> Expansion:
        """The characters that a raw character is mapped to, with their kinds."""
        mapping = self.mappings[ord(character)]
        if mapping == CharacterMapping.OTHER:
            return self.others[character]
        if mapping == CharacterMapping.REMOVED:
            return ()
        return ((character, Kind.ALONE if mapping == CharacterMapping.ALONE else Kind.LETTER),)


def read_characters(normalizer: dict[str, Any], pre_tokenizer: dict[str, Any]) -> Characters:
    """Map every code point with the `tokenizers` library, once per process and settings.

    Args:
        normalizer, pre_tokenizer: those sections of a tokenizer.json.

    Raises:
        TextModelError: they are not BERT's, which map character by character.
    """
    for section, wanted in ((normalizer, "BertNormalizer"), (pre_tokenizer, "BertPreTokenizer")):
        found = (section or {}).get("type")
        if found != wanted:
            raise TextModelError(
                f"tokenizer.json: found {found or 'nothing'} instead of {wanted}; only BERT's "
                "tokenizer can be written into the graph, serve this one with its bundle"
            )
    settings = {name: value for name, value in normalizer.items() if name != "type"}
    return _read(tuple(sorted(settings.items())))


@lru_cache(maxsize=4)
def _read(settings: tuple[tuple[str, bool | None], ...]) -> Characters:
    from tokenizers import normalizers

    normalizer = normalizers.BertNormalizer(**dict(settings))
    stripped = normalizer.strip_accents
    if stripped is None:
        stripped = normalizer.lowercase
    characters = Characters(np.zeros(0x110000, dtype=np.uint8), {}, bool(stripped))
    kinds = _Kinds()
    for block in _blocks(every_point()):
        _read_block(characters, block, normalizer.normalize_str, kinds)
    return characters


def every_point() -> str:
    """All characters of Unicode, assigned or not; surrogates are none."""
    return "".join(chr(point) for point in range(0x110000) if point not in SURROGATES)


def _read_block(
    characters: Characters, block: str, normalize: Callable[[str], str], kinds: _Kinds
) -> None:
    """Map many characters at once, and fewer where they are not all mapped alike."""
    whole = normalize(block)
    if whole == "":
        _set(characters, block, CharacterMapping.REMOVED)
    elif whole == block and kinds.all_letters(block):
        return
    elif whole == "".join(f" {character} " for character in block) and kinds.all_letters(block):
        _set(characters, block, CharacterMapping.ALONE)
    elif len(block) > 1:
        for part in _blocks(block):
            _read_block(characters, part, normalize, kinds)
    else:
        expansion = _simplified(tuple(kinds.of(part) for part in whole))
        if expansion == ((block, Kind.ALONE),):
            _set(characters, block, CharacterMapping.ALONE)
        elif expansion != ((block, Kind.LETTER),):
            _set(characters, block, CharacterMapping.OTHER)
            characters.others[block] = expansion


def _set(characters: Characters, block: str, mapping: CharacterMapping) -> None:
    characters.mappings[[ord(character) for character in block]] = mapping


def _blocks(text: str) -> list[str]:
    """The text in parts of the largest of 4096, 256, 16 and 1 characters that splits it."""
    size = BLOCK
    while size >= len(text):
        size //= SMALLER
    return [text[first : first + size] for first in range(0, len(text), size)]


def _simplified(parts: Expansion) -> Expansion:
    """Drop the blanks that the normalizer adds around a CJK character, a word of its own."""
    if len(parts) == 3 and parts[0] == parts[2] == BLANK[0] and parts[1][1] is not Kind.BLANK:
        return ((parts[1][0], Kind.ALONE),)
    return parts


class _Kinds:
    """The kinds of characters, by the pre-tokenizer."""

    def __init__(self) -> None:
        from tokenizers import pre_tokenizers

        self._pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._known: dict[str, tuple[str, Kind]] = {}

    def all_letters(self, text: str) -> bool:
        """Whether a text is one word without punctuation."""
        return self._words(f"a{text}a") == [f"a{text}a"]

    def of(self, character: str) -> tuple[str, Kind]:
        """A normalized character and its kind."""
        if character not in self._known:
            self._known[character] = self._ask(character)
        return self._known[character]

    def _ask(self, character: str) -> tuple[str, Kind]:
        words = self._words(f"a{character}a")
        if words == ["a", "a"]:
            return BLANK[0]
        return character, Kind.ALONE if words == ["a", character, "a"] else Kind.LETTER

    def _words(self, text: str) -> list[str]:
        return [word for word, _ in self._pre_tokenizer.pre_tokenize_str(text)]
