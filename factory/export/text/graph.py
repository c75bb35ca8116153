"""Nodes of standard ONNX that turn a batch of strings into the ids of their pieces."""

from __future__ import annotations

from typing import Any

from factory.export.text.nodes import BOOL, INT32, INT64, MICROSOFT, Nodes
from factory.export.text.pieces import BLANK, ROW_START, PieceArrays
from factory.export.text.tokenizer import EMPTY, ROW, UNKNOWN, CharacterClasses, TextTables

CHARACTERS: dict[str, Any] = {"mark": 0, "mincharnum": 1, "pad_value": ""}  # of Tokenizer


def add_pieces(nodes: Nodes, texts: list[str], tables: TextTables) -> tuple[str, str]:
    """Nodes that split texts into pieces as BERT's tokenizer does.

    Args:
        texts: names of string inputs, (batch,) each; their rows are taken one after the other.

    Returns:
        Names of the ids of all pieces, text after text, (pieces,) int32, and of the offsets where
        each text's pieces begin, (texts + 1,) int32.
    """
    # one more text keeps every tensor from being empty and marks where the last text ends
    rows = nodes.add("Concat", *texts, nodes.strings(["."]), axis=0)
    characters = nodes.add("Tokenizer", rows, domain=MICROSOFT, separators=[""], **CHARACTERS)
    symbols = _symbols(nodes, _classes(nodes, characters, tables.classes), tables)
    return _pieces(nodes, symbols, tables)


def _classes(nodes: Nodes, characters: str, classes: CharacterClasses) -> str:
    """The class of every character: (texts, characters)."""
    values = list(classes.keys.values())
    found = nodes.look_up(characters, list(classes.keys), values, UNKNOWN)
    if classes.ranges:
        found = _look_in_ranges(nodes, characters, found, classes)
    found = nodes.cast(found, INT32)
    return _literals(nodes, found, classes) if classes.literals else found


def _look_in_ranges(nodes: Nodes, characters: str, found: str, classes: CharacterClasses) -> str:
    """Put characters that have no key into the class of their range."""
    unknown = nodes.add("Equal", found, nodes.int64(UNKNOWN))
    places = nodes.add("Transpose", nodes.add("NonZero", unknown), perm=[1, 0])
    left = nodes.add("GatherND", characters, places)
    classes_left = []
    for number, ranges in classes.ranges.items():
        # a character that matches keeps the tokens of an empty batch from having no column
        last = nodes.strings([chr(ranges[0][0])])
        expression = "".join(rf"\x{{{first:X}}}-\x{{{end:X}}}" for first, end in ranges)
        both = nodes.add("Concat", left, last, axis=0)
        matches = nodes.add(
            "Tokenizer", both, domain=MICROSOFT, tokenexp=f"[{expression}]", **CHARACTERS
        )
        classes_left.append(nodes.look_up(matches, [""], [UNKNOWN], number))
    merged = nodes.add("Reshape", nodes.add("Max", *classes_left), nodes.int64([-1]))
    return nodes.add("ScatterND", found, places, nodes.slice(merged, 0, -1))


def _literals(nodes: Nodes, classes: str, table: CharacterClasses) -> str:
    """Replace `[SEP]` and other added tokens by their own classes, where there are any."""
    spelled = sorted({number for spelling in table.spellings.values() for number in spelling})
    firsts = sorted({spelling[0] for spelling in table.spellings.values()})
    begins = _within(nodes, classes, firsts[0], firsts[-1])
    some = nodes.add("ReduceMax", nodes.cast(begins, INT32), keepdims=0)
    inside = Nodes(f"{nodes.prefix}literals/")
    digits = inside.add(
        "Where",
        _within(inside, classes, spelled[0], spelled[-1]),
        inside.add("Sub", classes, inside.int32(spelled[0] - 1)),
        inside.int32(0),
    )
    replaced = _replaced(inside, classes, inside.cast(digits, INT64), table, spelled)
    unchanged = Nodes(f"{nodes.prefix}plain/")
    same = unchanged.add("Identity", classes)
    return nodes.add(
        "If",
        nodes.cast(some, BOOL),
        then_branch=inside.graph("literals", replaced, INT32),
        else_branch=unchanged.graph("plain", same, INT32),
    )


def _within(nodes: Nodes, value: str, first: int, last: int) -> str:
    above = nodes.add("Greater", value, nodes.int32(first - 1))
    return nodes.add("And", above, nodes.add("Less", value, nodes.int32(last + 1)))


def _replaced(
    nodes: Nodes, classes: str, digits: str, table: CharacterClasses, spelled: list[int]
) -> str:
    """The literal's class at its first character, nothing at its others.

    A literal is compared as one number, whose digits are its characters.
    """
    radix, lengths = len(spelled) + 1, sorted({len(name) for name in table.literals})
    padded = nodes.add("Pad", digits, nodes.int64([0, 0, 0, lengths[-1] - 1]))
    number, starts, covers = "", [], []
    for length in range(1, lengths[-1] + 1):
        digit = nodes.slice(padded, length - 1, (length - lengths[-1]) or None, axis=1)
        shifted = nodes.add("Mul", number, nodes.int64(radix)) if number else ""
        number = nodes.add("Add", shifted, digit) if shifted else digit
        if length not in lengths:
            continue
        values = {
            sum((c - spelled[0] + 1) * radix**p for p, c in enumerate(reversed(spelling))): literal
            for literal, spelling in table.spellings.items()
            if len(spelling) == length
        }
        found = [table.literals[literal] for literal in values.values()]
        start = nodes.look_up(number, list(values), found, 0)
        starts.append(start)
        # 1 for the characters of a literal after its first
        begins = nodes.cast(nodes.cast(start, BOOL), INT32)
        behind = [
            nodes.slice(nodes.add("Pad", begins, nodes.int64([0, by, 0, 0])), 0, -by, axis=1)
            for by in (1, length)
        ]
        covers.append(nodes.add("CumSum", nodes.add("Sub", *behind), nodes.int32(1)))
    start = nodes.add("Max", *starts)
    covered = nodes.cast(nodes.add("Max", *covers), BOOL)
    rest = nodes.add("Where", covered, nodes.int32(EMPTY), classes)
    return nodes.add("Where", nodes.cast(start, BOOL), nodes.cast(start, INT32), rest)


def _symbols(nodes: Nodes, classes: str, tables: TextTables) -> str:
    """The symbols of all texts one after the other, each text after a ROW_START: (symbols,)."""
    count = nodes.slice(nodes.add("Shape", classes), 0, 1)
    shape = nodes.add("Concat", count, nodes.int64([1]), axis=0)
    first = nodes.add("Expand", nodes.int32(ROW), shape)
    whole = nodes.add("Concat", first, classes, axis=1)
    table = nodes.table("symbols", tables.classes.symbols)
    symbols = nodes.add("Reshape", nodes.add("Gather", table, whole), nodes.int64([-1]))
    return nodes.add("Compress", symbols, nodes.cast(symbols, BOOL))


def _pieces(nodes: Nodes, symbols: str, tables: TextTables) -> tuple[str, str]:
    """The pieces of readable words, one unknown piece for every other word, and the offsets.

    All values are per symbol, (symbols,).
    """
    letter = nodes.add("Greater", symbols, nodes.int32(tables.symbols.unknown_letter - 1))
    before = nodes.add("Concat", nodes.bool([False]), nodes.slice(letter, 0, -1), axis=0)
    goes_on = nodes.add("And", letter, before)
    begins = nodes.add("Not", goes_on)  # a word; blanks and starts of texts begin one too
    beginning = nodes.add("Add", symbols, nodes.int32(tables.symbols.count))
    marked = nodes.add("Where", goes_on, symbols, beginning)
    count = nodes.cast(nodes.add("Size", symbols), INT32)
    positions = nodes.add("Range", nodes.int32(0), count, nodes.int32(1))
    # length and id of the longest piece that begins here, 0 if none does
    slot = _longest_match(nodes, marked, tables.pieces)
    length = nodes.add("Gather", nodes.table("length", tables.pieces.length), slot)
    piece = nodes.add("Gather", nodes.table("piece", tables.pieces.piece), slot)
    # the position where the word begins
    starts = nodes.add("Compress", positions, begins)
    number = nodes.add("CumSum", nodes.cast(begins, INT32), nodes.int32(0))
    start = nodes.add("Gather", starts, nodes.add("Sub", number, nodes.int32(1)))
    reached = _reached(nodes, begins, positions, length, count, tables.longest_word)
    # words that are unknown: too long, or a piece ends where no other begins
    stuck = nodes.add("And", reached, nodes.add("Equal", length, nodes.int32(0)))
    inside = nodes.add("Sub", positions, start)
    too_long = nodes.add("Greater", inside, nodes.int32(tables.longest_word - 1))
    failed = nodes.add("Or", stuck, too_long)
    nothing = nodes.add("And", failed, nodes.add("Not", failed))
    failing = nodes.add("Compress", start, failed)
    yes = nodes.add("Compress", failed, failed)
    unknown = nodes.add("Gather", nodes.add("ScatterElements", nothing, failing, yes), start)
    wanted = nodes.add("Or", begins, nodes.add("Not", unknown))
    text = nodes.add("Greater", symbols, nodes.int32(BLANK))
    taken = nodes.add("And", nodes.add("And", reached, wanted), text)
    every_id = nodes.add("Where", unknown, nodes.int32(tables.unknown_id), piece)
    numbers = nodes.add("CumSum", nodes.cast(taken, INT32), nodes.int32(0), exclusive=1)
    row_starts = nodes.add("Equal", symbols, nodes.int32(ROW_START))
    return nodes.add("Compress", every_id, taken), nodes.add("Compress", numbers, row_starts)


def _longest_match(nodes: Nodes, marked: str, pieces: PieceArrays) -> str:
    """The slot in the trie that each position reaches: (symbols,). Children have larger slots."""
    longest = pieces.longest
    symbol, base = nodes.table("symbol", pieces.symbol), nodes.table("base", pieces.base)
    # free slots have symbol 0, so the end is followed by a symbol that no piece has
    padded = nodes.add("Concat", marked, nodes.int32([ROW_START] * longest), axis=0)
    slots: list[str] = []
    for step in range(longest):
        place = nodes.slice(padded, step, step - longest)
        column = place
        if slots:
            place = nodes.add("Add", nodes.add("Gather", base, slots[-1]), column)
        there = nodes.add("Equal", nodes.add("Gather", symbol, place), column)
        slots.append(nodes.add("Where", there, place, nodes.int32(0)))
    return nodes.add("Max", *slots)


def _reached(
    nodes: Nodes, begins: str, positions: str, length: str, count: str, longest_word: int
) -> str:
    """Where pieces begin, found by jumps of 1, 2, 4, ... pieces from the starts of words.

    Jumps beyond a word end at starts of words, or at the end, which is a position of its own.
    """
    end = nodes.add("Reshape", count, nodes.int64([1]))
    jump = nodes.add("Concat", nodes.add("Add", positions, length), end, axis=0)
    reached = nodes.add("Concat", begins, nodes.bool([False]), axis=0)
    for step in range(max(1, longest_word - 1).bit_length()):
        jump = nodes.add("Gather", jump, jump) if step else jump
        to = nodes.add("Where", reached, jump, count)
        reached = nodes.add("ScatterElements", reached, to, reached)
    return nodes.slice(reached, 0, -1)
