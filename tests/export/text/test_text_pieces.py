"""The trie of a vocabulary in two arrays, walked by a plain loop."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.export.text.characters import BLANK, CharacterMapping, Characters, Kind
from factory.export.text.pieces import PieceArrays, Symbols, build_arrays, find_symbols

WORDS = st.text(alphabet="abcdé", min_size=1, max_size=7)
VOCABULARIES = st.lists(st.tuples(WORDS, st.booleans()), max_size=60).map(
    lambda pieces: list(dict.fromkeys(f"##{word}" if inner else word for word, inner in pieces))
)


def plain_characters() -> Characters:
    """Marks as "!" are words of their own, "-" vanishes, "K" becomes two letters."""
    mappings = np.zeros(0x110000, dtype=np.uint8)
    mappings[[ord(mark) for mark in "!#[]"]], mappings[ord("-")] = (
        CharacterMapping.ALONE,
        CharacterMapping.REMOVED,
    )
    mappings[[ord(" "), ord("K")]] = CharacterMapping.OTHER
    others = {" ": BLANK, "K": (("c", Kind.LETTER), ("d", Kind.LETTER))}
    return Characters(mappings, others, sorts_marks=False)


def longest(arrays: PieceArrays, codes: list[int]) -> tuple[int, int]:
    """Length and id of the longest piece at the start of some symbols."""
    slot, base = 0, 0
    for position, code in enumerate(codes):
        place = base + code
        if arrays.symbol[place] != code:
            break
        assert place > slot, "the slot of a child is behind its parent's"
        slot, base = place, int(arrays.base[place])
        assert position < arrays.longest
    return int(arrays.length[slot]), int(arrays.piece[slot])


def expected_longest(vocabulary: list[str], text: str, prefix: str) -> tuple[int, int]:
    """The longest piece by trying every length."""
    for length in range(len(text), 0, -1):
        if prefix + text[:length] in vocabulary:
            return length, vocabulary.index(prefix + text[:length])
    return 0, 0


@settings(max_examples=30, deadline=None)
@given(vocabulary=VOCABULARIES, texts=st.lists(WORDS, max_size=20))
def test_the_longest_piece_is_found(vocabulary: list[str], texts: list[str]) -> None:
    symbols = find_symbols(vocabulary, "##", plain_characters(), ["[SEP]"])
    numbers = {piece: number for number, piece in enumerate(vocabulary)}
    arrays = build_arrays(numbers, "##", {"[SEP]": 7}, symbols)
    for text in [*texts, *(piece.removeprefix("##") for piece in vocabulary)]:
        codes = [symbols.of(character, Kind.LETTER) for character in text]
        begins = [codes[0] + symbols.count, *codes[1:]]
        assert longest(arrays, begins) == expected_longest(vocabulary, text, "")
        assert longest(arrays, codes) == expected_longest(vocabulary, text, "##")
    assert longest(arrays, [symbols.literals["[SEP]"] + symbols.count]) == (1, 7)


def test_only_what_text_can_become_is_a_symbol() -> None:
    vocabulary = ["a", "!", "##!", "a!", "-", "##-", "K", "##c", "[CLS]", "##dz", "bK"]
    symbols = find_symbols(vocabulary, "##", plain_characters(), ["[CLS]"])
    assert symbols == Symbols({"[CLS]": 4}, {"!": 5}, {"a": 7, "c": 8, "d": 9, "z": 10})
    assert symbols.unknown_letter == 6
    assert symbols.count == 11
    assert [symbols.of("?", kind) for kind in Kind] == [2, 3, 6]
