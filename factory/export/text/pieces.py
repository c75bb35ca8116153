"""A WordPiece vocabulary as a trie in two arrays, walked by additions and lookups.

A double array (Aoe 1989): every node of the trie has a slot, every inner node a base, and its child
by symbol `c` is in slot `base + c`, which stores `c`. No two nodes share a base, so a slot that
stores the symbol by which it was reached belongs to the node from which it was reached.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
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
    own = {CharacterMapping.LETTER: Kind.LETTER, CharacterMapping.ALONE: Kind.ALONE}
    # the characters that text can be mapped to, with their kinds
    possible = {part for expansion in characters.others.values() for part in expansion}
    for character in {character for piece in vocabulary for character in piece}:
        mapping = CharacterMapping(characters.mappings[ord(character)])
        if mapping in own:
            possible.add((character, own[mapping]))
    alone: set[str] = set()
    letters: set[str] = set()
    for piece in vocabulary:
        if (piece, Kind.ALONE) in possible:
            alone.add(piece)
        for text in (piece, piece.removeprefix(prefix)):
            if all((character, Kind.LETTER) in possible for character in text):
                letters.update(text)
    named = dict.fromkeys(literals)
    first_alone = FIRST_SYMBOL + len(named)
    first_letter = first_alone + len(alone) + 1  # after the unknown letter
    return Symbols(
        {literal: number for number, literal in enumerate(named, FIRST_SYMBOL)},
        {character: number for number, character in enumerate(sorted(alone), first_alone)},
        {character: number for number, character in enumerate(sorted(letters), first_letter)},
    )


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
    start = symbols.count
    pieces: dict[tuple[int, ...], int] = {(ROW_START + start,): 0, (BLANK + start,): 0}
    pieces |= {(symbols.literals[text] + start,): number for text, number in literals.items()}
    for piece, number in vocabulary.items():
        pieces |= dict.fromkeys(_spellings(piece, prefix, symbols), number)
    children: list[dict[int, int]] = [{}]  # nodes by symbol, of each node
    ends: dict[int, int] = {}  # ids by the node where a piece ends
    for piece_symbols, number in pieces.items():
        node = 0
        for symbol in piece_symbols:
            if symbol not in children[node]:
                children[node][symbol] = len(children)
                children.append({})
            node = children[node][symbol]
        ends[node] = number
    return _place(children, ends, 2 * start)


def _spellings(piece: str, prefix: str, symbols: Symbols) -> Iterator[tuple[int, ...]]:
    """The sequences of symbols that spell this piece."""
    if piece in symbols.alone:
        yield (symbols.alone[piece] + symbols.count,)
    for text, added in ((piece, symbols.count), (piece.removeprefix(prefix), 0)):
        if (added or piece.startswith(prefix)) and text and set(text) <= symbols.letters.keys():
            first, *others = (symbols.letters[character] for character in text)
            yield (first + added, *others)


def _place(children: list[dict[int, int]], ends: dict[int, int], reach: int) -> PieceArrays:
    """Place the nodes, each after its parent, those with most children of a level first.

    Args:
        children: nodes by symbol, of each node.
        ends: ids by the node where a piece ends.
        reach: more than the largest symbol that a lookup may add to a base.
    """
    taken = bytearray(b"\1" + bytes(reach))  # per slot; the last one is always free
    symbols: dict[int, int] = {0: 0}  # per slot
    bases: dict[int, int] = {}  # per slot
    used = {0}
    searched: defaultdict[int, int] = defaultdict(int)  # first slot to try, by number of children
    found = {0: (0, 0)}  # length and id of the longest piece on the way to a slot
    level, depth = [(0, 0)], 0  # nodes with their slots
    while level:
        depth += 1
        following = []
        for node, slot in sorted(level, key=lambda item: -len(children[item[0]])):
            codes = sorted(children[node])
            if not codes:
                break
            base = 0
            if slot:
                start = max(slot, codes[0], searched[len(codes)])
                base = bases[slot] = _free_base(taken, used, codes, start)
                searched[len(codes)] = base + codes[0]
                used.add(base)
            for code in codes:
                child, child_slot = children[node][code], base + code
                taken[child_slot], symbols[child_slot] = 1, code
                found[child_slot] = (depth, ends[child]) if child in ends else found[slot]
                following.append((child, child_slot))
        level = following
    dead = max(symbols) + 1
    symbol, length, piece = np.zeros((3, dead + reach), dtype=np.int64)
    base_of = np.full(dead + reach, dead, dtype=np.int64)
    for slot, code in symbols.items():
        symbol[slot], base_of[slot] = code, bases.get(slot, dead)
        length[slot], piece[slot] = found[slot]
    return PieceArrays(symbol, base_of, length, piece, depth - 1)


def _free_base(taken: bytearray, used: Collection[int], codes: list[int], place: int) -> int:
    """The first unused base whose slots for these symbols are free and behind a place."""
    while True:
        place = taken.index(0, place + 1)
        base = place - codes[0]
        taken.extend(bytes(max(0, base + codes[-1] + 2 - len(taken))))
        if base not in used and not any(taken[base + code] for code in codes):
            return base
