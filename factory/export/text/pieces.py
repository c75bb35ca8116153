"""A WordPiece vocabulary as a trie in two arrays, walked by additions and lookups.

A double array (Aoe 1989): every node of the trie has a slot, every inner node a base, and its child
by symbol `c` stands in slot `base + c`, which remembers `c`. No two nodes share a base, so a slot
that remembers the symbol it was reached by belongs to the node it was reached from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from factory.export.text.characters import CharacterMapping, Characters, Kind

NOTHING, ROW_START, BLANK, UNKNOWN_ALONE = range(4)
FIRST_SYMBOL = 4

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Symbols:
    """Numbers of the symbols that text is mapped to.

    In order: nothing, the start of a row, a blank, an unknown word of its own, the literal tokens,
    the other words of their own, an unknown letter, the letters. A symbol that begins a word has
    `count` added.

    Args:
        literals: the added tokens, each one symbol.
        alone, letters: characters that occur in pieces.
    """

    literals: dict[str, int]
    alone: dict[str, int]
    letters: dict[str, int]

    @property
    def unknown_letter(self) -> int:
        """The first of the letters."""
        return FIRST_SYMBOL + len(self.literals) + len(self.alone)

    @property
    def count(self) -> int:
        """All symbols."""
        return self.unknown_letter + 1 + len(self.letters)

    def of(self, character: str, kind: Kind) -> int:
        """The symbol of a normalized character."""
        if kind is Kind.BLANK:
            return BLANK
        if kind is Kind.ALONE:
            return self.alone.get(character, UNKNOWN_ALONE)
        return self.letters.get(character, self.unknown_letter)


@dataclass(frozen=True, slots=True)
class PieceArrays:
    """The trie of all pieces; slot 0 and base 0 are the root's.

    Args:
        longest: symbols of the longest piece.

    Shapes:
        symbol: (slots,) the symbol by which a slot is reached, 0 where it is free
        base: (slots,) where the children of a slot's node begin; at slot 0 and for nodes without
            children it leads to slots that are all free
        length, piece: (slots,) longest piece on the way to a slot, and its id; 0 if none
    """

    symbol: Ints
    base: Ints
    length: Ints
    piece: Ints
    longest: int


def find_symbols(
    vocabulary: Iterable[str], prefix: str, characters: Characters, literals: Iterable[str]
) -> Symbols:
    """Number the characters that pieces are made of.

    Args:
        prefix: of the pieces that continue a word, "##".
        literals: added tokens, which are matched before anything is normalized.
    """
    possible = _possible(characters, {c for piece in vocabulary for c in piece})
    alone: set[str] = set()
    letters: set[str] = set()
    for piece in vocabulary:
        if len(piece) == 1 and (piece, Kind.ALONE) in possible:
            alone.add(piece)
        for text in (piece, piece.removeprefix(prefix)):
            if text and all((character, Kind.LETTER) in possible for character in text):
                letters.update(text)
    named = dict.fromkeys(literals)
    first_alone = FIRST_SYMBOL + len(named)
    first_letter = first_alone + len(alone) + 1  # behind the unknown letter
    return Symbols(
        {literal: number for number, literal in enumerate(named, FIRST_SYMBOL)},
        {character: number for number, character in enumerate(sorted(alone), first_alone)},
        {character: number for number, character in enumerate(sorted(letters), first_letter)},
    )


def _possible(characters: Characters, alphabet: set[str]) -> set[tuple[str, Kind]]:
    """The characters of the pieces that text can be mapped to, with their kinds."""
    own = {CharacterMapping.LETTER: Kind.LETTER, CharacterMapping.ALONE: Kind.ALONE}
    possible = {
        (character, own[mapping])
        for character in alphabet
        if (mapping := CharacterMapping(characters.mappings[ord(character)])) in own
    }
    for expansion in characters.others.values():
        possible.update(part for part in expansion if part[0] in alphabet)
    return possible


def build_arrays(
    vocabulary: Mapping[str, int], prefix: str, literals: Mapping[str, int], symbols: Symbols
) -> PieceArrays:
    """Put every piece that text can contain into one trie.

    The starts of words and the continuations need no tries of their own, since a symbol at the
    start of a word is another one. Rows' starts and blanks are pieces of one symbol with id 0.

    Args:
        vocabulary: ids of the pieces.
        literals: ids of the added tokens.
    """
    trie = _Trie()
    start = symbols.count
    for symbol in (ROW_START, BLANK):
        trie.add([symbol + start], 0)
    for literal, number in literals.items():
        trie.add([symbols.literals[literal] + start], number)
    for piece, number in vocabulary.items():
        for first, others in _spellings(piece, prefix, symbols):
            trie.add([first, *others], number)
    return trie.arrays(2 * symbols.count)


def _spellings(piece: str, prefix: str, symbols: Symbols) -> Iterator[tuple[int, list[int]]]:
    """The sequences of symbols that spell this piece."""
    if piece in symbols.alone:
        yield symbols.alone[piece] + symbols.count, []
    for text, added in ((piece, symbols.count), (piece.removeprefix(prefix), 0)):
        if (added or piece.startswith(prefix)) and text and set(text) <= symbols.letters.keys():
            first, *others = (symbols.letters[character] for character in text)
            yield first + added, others


class _Trie:
    """Pieces by their symbols."""

    def __init__(self) -> None:
        self.children: list[dict[int, int]] = [{}]
        self.pieces: dict[int, int] = {}

    def add(self, piece: list[int], number: int) -> None:
        node = 0
        for symbol in piece:
            if symbol not in self.children[node]:
                self.children[node][symbol] = len(self.children)
                self.children.append({})
            node = self.children[node][symbol]
        self.pieces[node] = number

    def arrays(self, reach: int) -> PieceArrays:
        """Place the nodes, each behind its parent, those with most children of a level first.

        Args:
            reach: more than the largest symbol that a lookup may add to a base.
        """
        layout = _Layout()
        found = {0: (0, 0)}  # length and id of the longest piece on the way to a node
        level, slots, depth = [0], {0: 0}, 0
        while level:
            depth += 1
            following = []
            for node in sorted(level, key=lambda node: -len(self.children[node])):
                places = layout.place(slots[node], self.children[node])
                for symbol, child in self.children[node].items():
                    slots[child] = places[symbol]
                    ends = child in self.pieces
                    found[child] = (depth, self.pieces[child]) if ends else found[node]
                    following.append(child)
            level = following
        used = len(layout.taken.rstrip(b"\0"))
        length, piece = np.zeros((2, used + reach), dtype=np.int64)
        for node, slot in slots.items():
            length[slot], piece[slot] = found[node]
        symbols = np.zeros(used + reach, dtype=np.int64)
        base = np.full(used + reach, used, dtype=np.int64)
        for slot, code in layout.symbols.items():
            symbols[slot] = code
        for slot, place in layout.bases.items():
            base[slot] = place
        return PieceArrays(symbols, base, length, piece, depth - 1)


class _Layout:
    """The slots that are taken."""

    def __init__(self) -> None:
        self.taken = bytearray(b"\1")
        self.symbols: dict[int, int] = {}
        self.bases: dict[int, int] = {}
        self._used_bases = {0}
        self._searched: dict[int, int] = {}

    def place(self, parent: int, children: Mapping[int, int]) -> dict[int, int]:
        """Find a base and free slots behind the parent; returns the slot per symbol."""
        if not children:
            return {}
        codes = sorted(children)
        base = 0 if parent == 0 else self._free_base(parent, codes)
        self._grow(base + codes[-1])
        self._used_bases.add(base)
        if parent:
            self.bases[parent] = base
        for code in codes:
            self.taken[base + code] = 1
            self.symbols[base + code] = code
        return {code: base + code for code in codes}

    def _free_base(self, parent: int, codes: list[int]) -> int:
        # where as many children found no place before, these need not look again
        slot = max(parent, codes[0], self._searched.get(len(codes), 0))
        while True:
            slot = self._free_slot(slot + 1)
            base = slot - codes[0]
            self._grow(base + codes[-1])
            if base not in self._used_bases and not any(self.taken[base + c] for c in codes):
                self._searched[len(codes)] = slot
                return base

    def _free_slot(self, start: int) -> int:
        self._grow(start)
        return self.taken.index(0, start)

    def _grow(self, slot: int) -> None:
        if slot + 1 >= len(self.taken):
            self.taken.extend(bytes(max(4096, slot + 2 - len(self.taken))))
