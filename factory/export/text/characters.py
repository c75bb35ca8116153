"""Mapping of every Unicode character by BERT's normalizer and pre-tokenizer, from the library."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.errors import TextModelError

SURROGATES = range(0xD800, 0xE000)
SEPARATOR = "\ua66e"  # a letter that the normalizer keeps and maps no other character to


class Kind(IntEnum):
    """How the pre-tokenizer treats a character."""

    BLANK = 0
    ALONE = 1  # a word of its own: punctuation, CJK
    LETTER = 2


# Characters with their kinds; the character of a blank is always " ".
Expansion = tuple[tuple[str, Kind], ...]
BLANK: Expansion = ((" ", Kind.BLANK),)


class CharacterMapping(IntEnum):
    """The result of mapping a raw character."""

    LETTER = 0  # itself, a letter
    REMOVED = 1
    ALONE = 2  # itself, a word of its own
    OTHER = 3  # something else, or more than one


@dataclass(frozen=True, slots=True)
class Characters:
    """The mapping of every code point.

    Args:
        others: expansions of the characters whose mapping is OTHER.
        sorts_marks: whether adjacent combining marks are sorted. This is the one step of BERT's
            normalizer that does not work character by character: to strip accents it applies
            Unicode's NFD, which also sorts marks of other categories than Mn, and removes Mn.

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
    from tokenizers.normalizers import BertNormalizer

    normalizer = BertNormalizer(**dict(settings))
    stripped = normalizer.strip_accents
    raw = _every_character().replace(SEPARATOR, "")
    normalized = normalizer.normalize_str(SEPARATOR.join(raw)).split(SEPARATOR)
    kinds = _kinds()
    mappings = np.zeros(0x110000, dtype=np.uint8)
    others = {}
    for character, result in zip(raw, normalized, strict=True):
        if result == character and result not in kinds:
            continue  # a letter
        expansion = _expansion(result, kinds)
        if not expansion:
            mappings[ord(character)] = CharacterMapping.REMOVED
        elif expansion == ((character, Kind.ALONE),):
            mappings[ord(character)] = CharacterMapping.ALONE
        else:
            mappings[ord(character)] = CharacterMapping.OTHER
            others[character] = expansion
    return Characters(mappings, others, normalizer.lowercase if stripped is None else stripped)


def _every_character() -> str:
    return "".join(chr(point) for point in range(0x110000) if point not in SURROGATES)


@lru_cache(maxsize=1)
def _kinds() -> dict[str, Kind]:
    """The kinds of all characters that are not letters."""
    from tokenizers.pre_tokenizers import BertPreTokenizer

    split = BertPreTokenizer().pre_tokenize_str
    characters = _every_character()
    words = [word for word, _ in split(characters)]
    kinds = dict.fromkeys(set(characters).difference(*words), Kind.BLANK)
    # between two letters, only a character that is always a word of its own still is one
    single = [word for word in words if len(word) == 1]
    again = {word for word, _ in split("a".join(["", *single, ""]))} - {"a"}
    return kinds | dict.fromkeys((word for word in again if len(word) == 1), Kind.ALONE)


def _expansion(text: str, kinds: dict[str, Kind]) -> Expansion:
    parts = tuple(
        BLANK[0] if kinds.get(part) is Kind.BLANK else (part, kinds.get(part, Kind.LETTER))
        for part in text
    )
    if len(parts) == 3 and parts[0] == parts[2] == BLANK[0] != parts[1]:
        return ((parts[1][0], Kind.ALONE),)  # the normalizer adds blanks around a CJK character
    return parts
