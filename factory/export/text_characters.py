"""What BERT's normalizer and pre-tokenizer make of every character, asked of the library itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from itertools import pairwise
from typing import Any

from factory.errors import TextModelError

CHUNK = 256  # code points asked at once; most chunks are removed or kept as a whole
SURROGATES = range(0xD800, 0xE000)


class Kind(IntEnum):
    """What a character is to the pre-tokenizer."""

    BLANK = 0
    ALONE = 1  # a word of its own: punctuation, CJK
    LETTER = 2


# Characters with their kinds; the character of a blank is always " ".
Expansion = tuple[tuple[str, Kind], ...]
BLANK: Expansion = ((" ", Kind.BLANK),)


@dataclass(frozen=True, slots=True)
class Characters:
    """The characters that do not stay the letter they are.

    Args:
        expansions: of each such character; () where it is removed.
        moving: characters that normalization may put into another order when two stand together.
            BERT's normalizer works character by character but for that: NFD sorts combining marks
            by their class. Those of Unicode category Mn are removed afterwards, the rest is here.
    """

    expansions: dict[str, Expansion]
    moving: tuple[str, ...]

    def expansion(self, character: str) -> Expansion:
        """What a character becomes."""
        return self.expansions.get(character, ((character, Kind.LETTER),))


def read_characters(normalizer: dict[str, Any], pre_tokenizer: dict[str, Any]) -> Characters:
    """Ask the `tokenizers` library about every code point, once per process and settings.

    Args:
        normalizer, pre_tokenizer: those sections of a tokenizer.json.

    Raises:
        TextModelError: they are not BERT's, whose work is known to be character by character.
    """
    for section, wanted in ((normalizer, "BertNormalizer"), (pre_tokenizer, "BertPreTokenizer")):
        found = (section or {}).get("type")
        if found != wanted:
            raise TextModelError(
                f"tokenizer.json: {found or 'nothing'} stands where a BERT has {wanted}; only a "
                "BERT's tokenizer can be put into the graph, serve this one with its bundle"
            )
    settings = {name: value for name, value in normalizer.items() if name != "type"}
    return _read(tuple(sorted(settings.items())))


@lru_cache(maxsize=4)
def _read(settings: tuple[tuple[str, bool | None], ...]) -> Characters:
    from tokenizers import normalizers

    normalizer = normalizers.BertNormalizer(**dict(settings))
    kinds = _Kinds()
    expansions: dict[str, Expansion] = {}
    for chunk in _chunks():
        whole = normalizer.normalize_str(chunk)
        if whole == "":
            expansions.update(dict.fromkeys(chunk, ()))
            continue
        if whole == chunk and kinds.all_letters(chunk):
            continue
        if whole == "".join(f" {character} " for character in chunk) and kinds.all_letters(chunk):
            expansions.update({character: ((character, Kind.ALONE),) for character in chunk})
            continue
        for character in chunk:
            normalized = character if whole == chunk else normalizer.normalize_str(character)
            expansion = _simplified(tuple(kinds.of(part) for part in normalized))
            if expansion != ((character, Kind.LETTER),):
                expansions[character] = expansion
    stripped = normalizer.strip_accents
    if stripped is None:
        stripped = normalizer.lowercase
    return Characters(expansions, _moving(expansions) if stripped else ())


def _chunks() -> list[str]:
    points = [point for point in range(0x110000) if point not in SURROGATES]
    starts = [*range(0, len(points), CHUNK), len(points)]
    return ["".join(map(chr, points[first:last])) for first, last in pairwise(starts)]


def _simplified(parts: Expansion) -> Expansion:
    """The normalizer sets blanks around a CJK character; it then is a word of its own."""
    if len(parts) == 3 and parts[0] == parts[2] == BLANK[0] and parts[1][1] is not Kind.BLANK:
        return ((parts[1][0], Kind.ALONE),)
    return parts


class _Kinds:
    """The kinds of characters, as the pre-tokenizer tells them."""

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


def _moving(expansions: dict[str, Expansion]) -> tuple[str, ...]:
    """Characters with a combining class that are left after accents are stripped."""
    from tokenizers import normalizers

    decompose = normalizers.NFD().normalize_str

    def between(character: str) -> str:
        # U+302A is of class 218 and U+0334 of class 1: a mark of another class than both changes
        # places with one of them, one of either class with the other, a plain character stays
        return f"\u302a{character}\u0334"

    found = []
    for chunk in _chunks():
        text = "".join(map(between, chunk))
        if decompose(text) != text:
            found += [
                character
                for character in chunk
                if decompose(character) == character
                and decompose(between(character)) != between(character)
                and expansions.get(character) != ()
            ]
    return tuple(found)
