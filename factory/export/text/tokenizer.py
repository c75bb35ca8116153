"""Read a tokenizer.json into tables for the graph, and reject unsupported tokenizers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from factory.errors import TextModelError
from factory.export.text.characters import CharacterMapping, Characters, read_characters
from factory.export.text.pieces import (
    NOTHING,
    ROW_START,
    UNKNOWN_ALONE,
    PieceArrays,
    Symbols,
    build_arrays,
    find_symbols,
)

TOKENIZER_FILE = "tokenizer.json"
UNKNOWN, EMPTY, ROW, ALONE = range(4)  # the classes every tokenizer has
LARGEST_NUMBER = 2**62  # a literal's characters are compared as one number
LONG_RANGE = 64  # at least this many adjacent characters of one class are written as a range


@dataclass(frozen=True, slots=True)
class RowFormat:
    """How pieces become rows: `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`.

    Args:
        max_length: pieces of a row, special ones included.
    """

    cls_id: int
    sep_id: int
    pad_id: int
    max_length: int
    text_pair: bool

    @property
    def specials(self) -> int:
        """The number of special pieces in a row."""
        return 3 if self.text_pair else 2


@dataclass(frozen=True, slots=True)
class CharacterClasses:
    """The classes of characters, and the symbols of each class.

    Classes 4 and up are the literal tokens, then the characters these are written with, so that
    the literals can be found by classes alone.

    Args:
        keys: classes of characters; those missing here and in `ranges` are unknown letters.
        ranges: code points of a class, first and last; a key within a range takes precedence.
        literals: classes of the literal tokens.
        spellings: the classes of each literal's characters.

    Shapes:
        symbols: (classes, most symbols of a character), filled up with 0
    """

    keys: dict[str, int]
    ranges: dict[int, list[tuple[int, int]]]
    literals: dict[str, int]
    spellings: dict[str, list[int]]
    symbols: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TextTables:
    """A tokenizer as tables.

    Args:
        unknown_id: of `[UNK]`.
        longest_word: more characters than this make a word unknown.
        words: pieces that are a whole word of letters, for texts to check with.
    """

    symbols: Symbols
    classes: CharacterClasses
    pieces: PieceArrays
    unknown_id: int
    longest_word: int
    words: tuple[str, ...]


def read_tables(directory: Path) -> TextTables:
    """The tables of the tokenizer in a folder.

    Raises:
        TextModelError: no tokenizer.json, not a BERT's, or settings the graph does not support.
    """
    file = directory / TOKENIZER_FILE
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TextModelError(
            f"{file}: cannot be read ({error}); give the folder of a bundle or of a student"
        ) from error
    model = data["model"]
    if model["type"] != "WordPiece":
        raise TextModelError(f"{file}: a {model['type']} tokenizer; the graph needs WordPiece")
    vocabulary: dict[str, int] = model["vocab"]
    unknown_id = vocabulary.get(model["unk_token"])
    if unknown_id is None:
        raise TextModelError(f"{file}: {model['unk_token']} is not in the vocabulary")
    for token in data["added_tokens"]:
        for setting in ("normalized", "lstrip", "rstrip", "single_word"):
            if token.get(setting):
                raise TextModelError(
                    f"{file}: the added token {token['content']!r} has {setting} = true, which "
                    "the graph does not support; serve this tokenizer with its bundle"
                )
    literals = {token["content"]: token["id"] for token in data["added_tokens"]}
    prefix: str = model["continuing_subword_prefix"]
    characters = read_characters(data["normalizer"], data["pre_tokenizer"])
    symbols = find_symbols(vocabulary, prefix, characters, literals)
    return TextTables(
        symbols,
        find_classes(characters, symbols),
        build_arrays(vocabulary, prefix, literals, symbols),
        unknown_id,
        model["max_input_chars_per_word"],
        tuple(piece for piece in vocabulary if set(piece) <= symbols.letters.keys()),
    )


def read_row_format(directory: Path, max_length: int, text_pair: bool) -> RowFormat:
    """How the tokenizer makes rows of texts, found by encoding empty texts.

    Raises:
        TextModelError: not `[CLS] a [SEP]` and `[CLS] a [SEP] b [SEP]`, the second text of type 1.
    """
    from tokenizers import Tokenizer

    file = directory / TOKENIZER_FILE
    tokenizer = Tokenizer.from_file(str(file))
    padding = tokenizer.padding
    tokenizer.no_truncation()
    tokenizer.no_padding()
    pad_id = padding["pad_id"] if padding else tokenizer.token_to_id("[PAD]") or 0
    single, pair = tokenizer.encode(""), tokenizer.encode("", "")
    filled = tokenizer.encode("", tokenizer.id_to_token(pad_id))
    if len(single.ids) == 2 and single.type_ids == [0, 0] and filled.type_ids == [0, 0, 1, 1]:
        cls_id, sep_id = single.ids
        if pair.ids == [cls_id, sep_id, sep_id] and pair.type_ids == [0, 0, 1]:
            return RowFormat(cls_id, sep_id, pad_id, max_length, text_pair)
    raise TextModelError(
        f"{file}: an empty text becomes {single.tokens}, an empty pair {pair.tokens}; the graph "
        "writes [CLS] a [SEP] and [CLS] a [SEP] b [SEP] only, serve this tokenizer with its bundle"
    )


def find_classes(characters: Characters, symbols: Symbols) -> CharacterClasses:
    """Sort every code point into a class.

    Raises:
        TextModelError: literal tokens that are very long or can overlap in a text, or marks of the
            vocabulary that normalization reorders.
    """
    _check_literals(list(symbols.literals))
    _check_order(characters, symbols)

    def symbols_of(character: str) -> tuple[int, ...]:
        return tuple(symbols.of(*part) for part in characters.expansion(character))

    rows: list[tuple[int, ...]] = [(symbols.unknown_letter,), (), (ROW_START,), (UNKNOWN_ALONE,)]
    numbers = {row: number for number, row in enumerate(rows)}
    literals = {literal: number for number, literal in enumerate(symbols.literals, len(rows))}
    rows += [(number,) for number in symbols.literals.values()]
    # the characters of the literals, those that begin one first
    spelled = dict.fromkeys([literal[0] for literal in literals] + list("".join(literals)))
    written = {character: number for number, character in enumerate(spelled, len(rows))}
    rows += map(symbols_of, written)
    classes = np.full(len(characters.mappings), UNKNOWN)
    classes[characters.mappings == CharacterMapping.REMOVED] = EMPTY
    classes[characters.mappings == CharacterMapping.ALONE] = ALONE
    for character in {**symbols.letters, **symbols.alone, **characters.others}:
        row = symbols_of(character)
        if row not in numbers:
            numbers[row] = len(rows)
            rows.append(row)
        classes[ord(character)] = numbers[row]
    for character, number in written.items():
        classes[ord(character)] = number
    keys, ranges = _split_ranges(classes)
    matrix = np.full((len(rows), max(map(len, rows))), NOTHING, dtype=np.int64)
    for number, row in enumerate(rows):
        matrix[number, : len(row)] = row
    spellings = {literal: [written[character] for character in literal] for literal in literals}
    return CharacterClasses({"": EMPTY, **keys}, ranges, literals, spellings, matrix)


def _check_literals(literals: Sequence[str]) -> None:
    radix = len(set("".join(literals))) + 1
    for first in literals:
        if radix ** len(first) >= LARGEST_NUMBER:
            raise TextModelError(
                f"tokenizer.json: the added token {first!r} is too long to be found in a graph; "
                "serve this tokenizer with its bundle"
            )
        ends = [first[-length:] for length in range(1, len(first))]
        for second in literals:
            overlap = any(second.startswith(end) for end in ends if len(end) < len(second))
            if overlap or (first != second and second in first):
                raise TextModelError(
                    f"tokenizer.json: the added tokens {first!r} and {second!r} can overlap in a "
                    "text, which the graph does not support; serve this tokenizer with its bundle"
                )


def _check_order(characters: Characters, symbols: Symbols) -> None:
    """Reject marks of the vocabulary that normalization reorders; unknown marks do not matter."""
    from tokenizers import normalizers

    decompose = normalizers.NFD().normalize_str
    # U+302A is of combining class 218 and U+0334 of class 1: of three in a row a mark of any class
    # is reordered with at least one of them
    surrounded = (f"\u302a{letter}\u0334" for letter in symbols.letters)
    marks = [text[1] for text in surrounded if decompose(text) != text]
    for first in marks if characters.sorts_marks else ():
        for second in marks:
            if decompose(first + second) == second + first != first + second:
                raise TextModelError(
                    f"tokenizer.json: the vocabulary has the marks U+{ord(first):04X} and "
                    f"U+{ord(second):04X}, which normalization reorders when they are adjacent; "
                    "the graph does not support that, serve this tokenizer with its bundle"
                )


def _split_ranges(
    classes: NDArray[np.int64],
) -> tuple[dict[str, int], dict[int, list[tuple[int, int]]]]:
    """Long ranges of removed and of unknown CJK characters, and all other characters by name.

    Shapes:
        classes: (0x110000,)
    """
    ranges: dict[int, list[tuple[int, int]]] = {}
    named = classes != UNKNOWN
    for number in (EMPTY, ALONE):
        own = classes == number
        # a character with a class of its own may be within a range: its key takes precedence
        within = np.isin(classes, [UNKNOWN, *{EMPTY, ALONE} - {number}], invert=True)
        edges = np.flatnonzero(np.diff(within.astype(np.int8), prepend=0, append=0))
        for first, end in edges.reshape(-1, 2).tolist():
            points = first + np.flatnonzero(own[first:end])
            if len(points) >= LONG_RANGE:
                ranges.setdefault(number, []).append((int(points[0]), int(points[-1])))
                named[points] = False
    return {chr(point): int(classes[point]) for point in np.flatnonzero(named)}, ranges
